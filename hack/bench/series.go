package main

import (
	"cmp"
	"slices"
	"time"
)

// result is one line of the report.
type result struct {
	Name string  `json:"name"`
	Unit string  `json:"unit"` // anything "/…" more is better; all others less
	N    int     `json:"n"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"` // 0 with a single sample
}

// series collects durations of one thing.
type series struct{ samples []time.Duration }

// time measures one call; a failed one is no sample.
func (s *series) time(f func() error) error {
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	s.add(time.Since(begin))
	return nil
}

func (s *series) add(d time.Duration) { s.samples = append(s.samples, d) }

// quantile returns the smallest sample that at least the fraction q of all
// samples do not exceed, in milliseconds.
func (s *series) quantile(q float64) float64 {
	return float64(quantile(s.samples, q)) / float64(time.Millisecond)
}

func quantile[T cmp.Ordered](samples []T, q float64) T {
	if len(samples) == 0 {
		var zero T
		return zero
	}
	sorted := slices.Clone(samples)
	slices.Sort(sorted)
	i := int(q*float64(len(sorted))+0.9999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func (s *series) result(name string) result {
	r := result{Name: name, Unit: "ms", N: len(s.samples), P50: s.quantile(0.5)}
	if len(s.samples) > 1 {
		r.P90 = s.quantile(0.9)
	}
	return r
}

func single(name, unit string, value float64) result {
	return result{Name: name, Unit: unit, N: 1, P50: value}
}

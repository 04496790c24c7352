package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// measure has the targets take their turns, and returns the results by target, also
// those from before an error.
func (s scenario) measure(ctx context.Context, o options, targets []*target) ([][]result, error) {
	all := make([][]result, len(targets))
	for turn := range s.turns {
		for _, i := range order(turn, len(targets)) {
			t := targets[i]
			fmt.Fprintf(os.Stderr, "%s  %-8s %s\n", time.Now().Format(time.TimeOnly), s.name, t.name)
			results, err := s.run(ctx, o, t)
			if errors.Is(err, errSkip) {
				fmt.Fprintf(os.Stderr, "          skipped: %v\n", err)
				continue
			}
			all[i] = append(all[i], results...)
			if err != nil {
				return all, fmt.Errorf("measure %s of %s: %w", s.name, t.name, err)
			}
		}
	}
	return all, nil
}

// order is whose turn it is. Each second turn goes the other way round, so that no
// target is always the one after the other's clean-up.
func order(turn, targets int) []int {
	out := make([]int, targets)
	for i := range out {
		out[i] = i
		if turn%2 == 1 {
			out[i] = targets - 1 - i
		}
	}
	return out
}

// merge makes one result of those of one name, which several turns gave.
func merge(results []result) []result {
	var out []result
	values := map[string][]float64{}
	for _, r := range results {
		if values[r.Name] == nil {
			out = append(out, r)
		}
		values[r.Name] = append(values[r.Name], r.P50)
	}
	for i, r := range out {
		if v := values[r.Name]; len(v) > 1 {
			out[i] = result{Name: r.Name, Unit: r.Unit, N: len(v), P50: quantile(v, 0.5), P90: quantile(v, 0.9)}
		}
	}
	return out
}

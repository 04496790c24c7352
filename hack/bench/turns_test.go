package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTurns(t *testing.T) {
	a, b := &target{name: "a"}, &target{name: "b"}
	var took []string
	s := scenario{"x", 3, func(_ context.Context, _ options, t *target) ([]result, error) {
		took = append(took, t.name)
		if t == b && len(took) < 5 {
			return nil, fmt.Errorf("not yet: %w", errSkip)
		}
		return []result{single("call", "µs", float64(len(took)))}, nil
	}}
	all, err := s.measure(t.Context(), options{}, []*target{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(took, ""); got != "abbaab" {
		t.Errorf("their turns were %s", got)
	}
	if len(all[0]) != 3 || len(all[1]) != 1 {
		t.Errorf("results %v", all)
	}

	broken := errors.New("broken")
	s.run = func(_ context.Context, _ options, t *target) ([]result, error) {
		if t == b {
			return []result{single("half", "µs", 1)}, broken
		}
		return []result{single("call", "µs", 1)}, nil
	}
	all, err = s.measure(t.Context(), options{}, []*target{a, b})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "measure x of b") {
		t.Errorf("error %v", err)
	}
	if len(all[0]) != 1 || len(all[1]) != 1 {
		t.Errorf("after an error: results %v", all)
	}
}

func TestMerge(t *testing.T) {
	rpc := result{Name: "exec", Unit: "ms", N: 30, P50: 5, P90: 7}
	got := merge([]result{single("a", "µs", 3), rpc, single("a", "µs", 1), single("a", "µs", 2)})
	want := []result{{Name: "a", Unit: "µs", N: 3, P50: 2, P90: 3}, rpc}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := merge(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}

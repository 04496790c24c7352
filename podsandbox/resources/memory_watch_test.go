package resources

import (
	"math"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestOverLimit(t *testing.T) {
	use := func(bytes ...uint64) map[string]engine.Usage {
		m := map[string]engine.Usage{}
		for i, b := range bytes {
			m[string(rune('a'+i))] = engine.Usage{MemoryBytes: b}
		}
		return m
	}
	for name, c := range map[string]struct {
		limits map[string]uint64
		use    map[string]engine.Usage
		over   string
		left   uint64
	}{
		"below":               {map[string]uint64{"a": 100}, use(40), "", 60},
		"at the limit":        {map[string]uint64{"a": 100}, use(100), "", 0},
		"over":                {map[string]uint64{"a": 100}, use(101), "a", math.MaxUint64},
		"one of two":          {map[string]uint64{"a": 100, "b": 100}, use(200, 30), "a", 70},
		"the nearest counts":  {map[string]uint64{"a": 100, "b": 100}, use(90, 30), "", 10},
		"unlimited neighbour": {map[string]uint64{"b": 100}, use(5000, 30), "", 70},
		"unknown use":         {map[string]uint64{"x": 100}, use(), "", 100},
	} {
		over, left := overLimit(c.limits, c.use)
		got := ""
		for _, id := range over {
			got += id
		}
		if got != c.over || left != c.left {
			t.Errorf("%s: over %q with %d left, want %q with %d", name, got, left, c.over, c.left)
		}
	}
}

package stats

import (
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestRates(t *testing.T) {
	now := time.Now()
	a := &usage{time: now, group: &cgroup.Stats{CPU: time.Second}, use: map[string]engine.Usage{"x": {CPU: time.Second}}}
	b := &usage{time: now.Add(2 * time.Second), group: &cgroup.Stats{CPU: 2 * time.Second},
		use: map[string]engine.Usage{"x": {CPU: 4 * time.Second}, "new": {CPU: time.Second}}}
	got := rates(a, b)
	if got[""] != 5e8 || got["x"] != 15e8 || got["new"] != 0 {
		t.Errorf("rates = %v", got)
	}
	if r := nanocores(2*time.Second, time.Second, time.Second); r != 0 {
		t.Errorf("a counter that fell gives %d", r)
	}
}

package gvisor

import (
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// What has run for less than a tick has run: metrics-server drops a pod of which one
// container has used no CPU or no memory.
func TestUsageOfIsNeverZero(t *testing.T) {
	for _, c := range []struct {
		memory, stat string
		want         engine.Usage
	}{
		{"0", "usage_usec 0\nuser_usec 0\nsystem_usec 0\n",
			engine.Usage{CPU: time.Microsecond, CPUSystem: time.Microsecond, MemoryBytes: 4096}},
		{"8192", "usage_usec 30000\nuser_usec 10000\nsystem_usec 20000\n",
			engine.Usage{CPU: 30 * time.Millisecond, CPUUser: 10 * time.Millisecond, CPUSystem: 20 * time.Millisecond, MemoryBytes: 8192}},
	} {
		c.want.Pids = 1
		if got, ok := usageOf([]cgroupResult{{Data: c.memory + "\n"}, {Data: "1\n"}, {Data: c.stat}}); !ok || got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.stat, got, ok, c.want)
		}
	}
}

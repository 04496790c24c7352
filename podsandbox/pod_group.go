package podsandbox

import (
	"context"
	"fmt"
	"os"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// makeGroup makes the pod's cgroup. Its parent is noted first, for when the record is
// lost.
func (h *podHost) makeGroup(p *state.Pod) error {
	parent := p.Config().GetLinux().GetCgroupParent()
	if err := os.WriteFile(h.paths.Cgroup(p.ID()), []byte(parent), 0o600); err != nil {
		return fmt.Errorf("note the cgroup's parent: %w", err)
	}
	crashpoint.Here("after cgroup note")
	g, err := cgroup.Create(parent, p.ID(), cgroup.Limits{})
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	g.SetOwner(h.paths.CgroupOwner())
	p.SetGroup(g)
	if err := h.resources.Fit(p); err != nil { // by what is above it, too
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

func (h *podHost) removeGroup(ctx context.Context, p *state.Pod) error {
	g := p.Group()
	if g == nil {
		return nil
	}
	if err := g.Delete(ctx); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	p.SetGroup(nil)
	return nil
}

// oomKills is how often the kernel has killed something in the pod's cgroup.
func oomKills(p *state.Pod) uint64 {
	g := p.Group()
	if g == nil {
		return 0
	}
	n, err := g.OOMKills()
	if err != nil {
		klog.ErrorS(err, "Failed to read the OOM kills of a pod", "pod", p.ID())
	}
	return n
}

// killedForMemory tells whether the kernel has killed something in the pod's cgroup since
// it was so many times.
func killedForMemory(p *state.Pod, before uint64) bool { return oomKills(p) > before }

// killsBefore is how often the kernel had killed something in the pod's cgroup when its
// last container was started.
func killsBefore(p *state.Pod) (n uint64) {
	for _, c := range p.Containers() {
		n = max(n, c.Status().OOMKills)
	}
	return n
}

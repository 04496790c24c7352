package podsandbox

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// sandboxDied is the one path for the end of a sandbox process that nobody asked for.
// The containers that run learn of it through their own waits.
func (m *Manager) sandboxDied(p *state.Pod) {
	message := "the sandbox process ended unexpectedly"
	if killedForMemory(p, killsBefore(p)) {
		message = "the kernel killed the sandbox process: the pod was out of memory"
	}
	err := p.ForceTransition(lifecycle.Died, func(st *record.PodStatus) { st.Message = message })
	if errdefs.IsFailedPrecondition(err) && !errors.Is(err, record.ErrNotPersisted) {
		return // a stop or an undo ended it, and tells itself
	}
	klog.InfoS("Sandbox process ended unexpectedly", "pod", p.ID(), "why", message)
	if err != nil {
		klog.ErrorS(err, "Failed to record the end of a sandbox; it will be tried again", "pod", p.ID())
		m.work.Retry("record pod "+p.ID(), m.timeouts.sandbox, func(context.Context) error { return p.Persist() })
	}
	m.endCreated(p)
}

// endCreated ends the containers of a dead pod that were never started: nobody
// waits for them, and nobody can start them any more.
func (m *Manager) endCreated(p *state.Pod) {
	for _, c := range p.Containers() {
		if c.Phase() == lifecycle.Created {
			m.containerEnded(c, endedWithPod(c))
		}
	}
}

// killedForMemory tells whether the kernel has killed something in the pod's cgroup since
// it was so many times.
func killedForMemory(p *state.Pod, before uint64) bool { return oomKills(p) > before }

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

// killsBefore is how often the kernel had killed something in the pod's cgroup when its
// last container was started.
func killsBefore(p *state.Pod) (n uint64) {
	for _, c := range p.Containers() {
		n = max(n, c.Status().OOMKills)
	}
	return n
}

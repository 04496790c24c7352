package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// watchSandbox takes note when the sandbox process ends.
func (m *Manager) watchSandbox(p *state.Pod, sb engine.Sandbox) {
	m.work.Go("watch the sandbox of pod "+p.ID(), func(life context.Context) {
		select {
		case <-life.Done():
		case <-sb.Done():
			m.sandboxDied(p)
		}
	})
}

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
		m.work.Retry("record pod "+p.ID(), m.opts.Timeouts.Sandbox, func(context.Context) error { return p.Persist() })
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

// endSandbox kills the sandbox and sees to it that every container's end is on
// record.
func (m *Manager) endSandbox(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	adopted := p.Sandbox() != nil
	if err := m.host.kill(ctx, p); err != nil {
		return fmt.Errorf("end sandbox: %w", err)
	}
	if !adopted { // nobody waits for its containers
		m.endMembers(ctx, p, true, endedWithPod)
	}
	for _, c := range p.Containers() {
		if err := m.awaitEnd(ctx, c); err != nil {
			return fmt.Errorf("end sandbox: %w", err)
		}
	}
	p.SetSandbox(nil)
	p.AnnounceEnd()
	return nil
}

// awaitEnd waits until a container of an ended sandbox is recorded as Exited.
// One that nobody waits for is recorded here.
func (m *Manager) awaitEnd(ctx context.Context, c *state.Container) error {
	switch c.Phase() {
	case lifecycle.Created, lifecycle.Starting:
		m.containerEnded(c, endedWithPod(c))
		return nil
	case lifecycle.Running:
		select {
		case <-c.Ended():
		case <-time.After(2 * time.Second):
			m.containerEnded(c, endedWithPod(c))
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of container %s: %w", c.ID(), context.Cause(ctx))
		}
	}
	return nil
}

// endMembers brings the containers of a pod without a sandbox to their end, as ended says.
// What their streams still hold is written to the log first, where there are any. What
// cannot be deleted now of those whose creation or removal was cut off goes with the pod.
func (m *Manager) endMembers(ctx context.Context, p *state.Pod, streams bool, ended func(*state.Container) end) {
	for _, c := range p.Containers() {
		switch c.Phase() {
		case lifecycle.Creating, lifecycle.Removing:
			if err := m.deleteContainer(ctx, c); err != nil {
				klog.ErrorS(err, "Failed to finish the removal of a container", "container", c.ID())
			}
		case lifecycle.Created, lifecycle.Starting, lifecycle.Running:
			if streams {
				if err := m.Streams.Reopen(c); err != nil {
					klog.ErrorS(err, "Failed to read what an ended container wrote", "container", c.ID())
				}
			}
			m.containerEnded(c, ended(c))
		}
	}
}

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
		m.persistLater("pod "+p.ID(), p.Persist)
	}
	m.endCreated(p)
}

// persistLater writes a record that is not on the disk yet, as soon as that is possible.
func (m *Manager) persistLater(what string, persist func() error) {
	m.work.Retry("record "+what, m.opts.Timeouts.Sandbox, func(context.Context) error { return persist() })
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
	if err := m.host.kill(ctx, p); err != nil {
		return fmt.Errorf("end sandbox: %w", err)
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

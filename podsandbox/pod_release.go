package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// giveBack ends the sandbox and gives back the network, the namespace and the
// cgroup. Each step is idempotent, and a failing one does not keep the others
// from running. CNI DEL takes the longest and needs no dead sandbox.
func (m *Manager) giveBack(ctx context.Context, p *state.Pod) error {
	network := make(chan error, 1)
	detach := func() { network <- m.host.disconnect(ctx, p) }
	if m.opts.Plugins == nil {
		go detach()
	}
	err := m.endSandbox(ctx, p)
	if m.opts.Plugins != nil {
		m.opts.Plugins.PodStopped(ctx, p) // while its network is there
		go detach()
	}
	if err == nil {
		err = m.host.removeGroup(ctx, p)
	}
	return errors.Join(err, <-network)
}

// endSandbox kills the sandbox and sees to it that every container's end is on
// record.
func (m *Manager) endSandbox(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeouts.sandbox)
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

// kill ends the sandbox process, and waits for that.
func (h *podHost) kill(ctx context.Context, p *state.Pod) error {
	if sb := p.Sandbox(); sb != nil {
		return sb.Kill(ctx)
	}
	e, err := h.engineOf(p) // booted by an earlier daemon, or not at all
	if err != nil {
		return err
	}
	return e.Reap(ctx, p.ID())
}

// disconnect gives back the pod's addresses, then its namespace. The network's
// own cache knows what to undo, also when the namespace is gone.
//
// Only a pod that is not Ready on record gives back its addresses. Else a daemon
// that is started before the sandbox is killed would adopt it without a network.
// And the network's cache is on the same disk: an attachment that cannot be taken
// off it would claim addresses that another pod has by the time of the next DEL,
// and some plugins delete rules by address alone.
func (h *podHost) disconnect(ctx context.Context, p *state.Pod) error {
	if p.NetNS == "" {
		return nil
	}
	if err := p.Persist(); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	if err := h.cni.Detach(ctx, networkPod(p)); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	if err := network.RemoveNamespace(p.NetNS); err != nil {
		return fmt.Errorf("remove network namespace: %w", err)
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

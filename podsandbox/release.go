package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
)

// StopPodSandbox ends the pod's processes and gives back what it holds on the
// host. A stopped or unknown pod is no error. After a failure the pod is Stopping, and the
// next call goes on.
func (m *Manager) StopPodSandbox(ctx context.Context, id string) error {
	p, err := m.findPod(id)
	if errdefs.IsNotFound(err) {
		return nil // CRI: idempotent
	}
	if err != nil {
		return err
	}
	_, err = join(ctx, m, "stop/"+p.id(), m.opts.Timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.stop(ctx, p)
	})
	if err != nil {
		return fmt.Errorf("stop pod %s: %w", p.id(), err)
	}
	return nil
}

func (m *Manager) stop(ctx context.Context, p *pod) error {
	switch p.phase() {
	case lifecycle.Stopped:
		return nil
	case lifecycle.Creating:
		return fmt.Errorf("it is still being created: %w", errdefs.ErrFailedPrecondition)
	}
	// Whatever the disk says, nothing of the pod runs on. What is given back only on
	// record fails then, and so does the request.
	if err := p.note(lifecycle.Stop, nil); err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	if err := m.release(ctx, p); err != nil {
		return err
	}
	return p.apply(lifecycle.Released, nil)
}

// RemovePodSandbox deletes a pod with its containers, stopping it first. An
// unknown pod is no error.
func (m *Manager) RemovePodSandbox(ctx context.Context, id string) error {
	p, err := m.findPod(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = join(ctx, m, "remove/"+p.id(), m.opts.Timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		if p.phase() != lifecycle.Removing {
			if err := m.StopPodSandbox(ctx, p.id()); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, m.remove(ctx, p)
	})
	if err != nil {
		return fmt.Errorf("remove pod %s: %w", p.id(), err)
	}
	return nil
}

// remove deletes what is left of a stopped pod. The record goes last.
func (m *Manager) remove(ctx context.Context, p *pod) error {
	if err := p.apply(lifecycle.Remove, nil); err != nil {
		return err
	}
	if err := p.waitIdle(ctx); err != nil {
		return err
	}
	for _, c := range p.members() {
		if err := m.removeContainer(ctx, c); err != nil {
			return err
		}
	}
	m.opts.Plugins.RemovePod(ctx, m.pluginPod(p))
	crashpoint.Here("before pod folder removal")
	if err := os.RemoveAll(m.paths.pod(p.id())); err != nil {
		return fmt.Errorf("remove pod folder: %w", err)
	}
	crashpoint.Here("after pod folder removal")
	return m.tell(p, p.id(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, func() error {
		if err := p.Delete(); err != nil {
			return fmt.Errorf("remove record: %w", err)
		}
		m.dropPod(p)
		m.stats.forget(p.id())
		return nil
	})
}

// abandon undoes a pod that did not become Ready. What cannot be undone now stays
// in the record as abandoned: it is tried again until it can be, by this daemon or
// the next.
func (m *Manager) abandon(ctx context.Context, p *pod) {
	ctx, cancel := cleanupContext(ctx, m.opts.Timeouts.operation())
	defer cancel()
	m.freeName(p) // a retry of the request must not find this one
	if err := m.undo(ctx, p); err != nil {
		klog.ErrorS(err, "Undo a pod that failed to start; it will be tried again", "pod", p.id())
		m.persist(func(ctx context.Context) error { return m.undo(ctx, p) })
	}
}

// undo is abandon's one attempt. A caller who sees the pod may stop or remove it
// meanwhile, and joins.
func (m *Manager) undo(ctx context.Context, p *pod) error {
	if p.phase() == lifecycle.Creating {
		err := p.note(lifecycle.Stop, func(st *record.PodStatus) { st.Abandoned = true })
		if err != nil && !errors.Is(err, record.ErrUnsaved) {
			return err
		}
	}
	return m.RemovePodSandbox(ctx, p.id())
}

// release ends the sandbox and gives back the network, the namespace and the
// cgroup. Each step is idempotent, and a failing one does not keep the others
// from running. CNI DEL takes the longest and needs no dead sandbox.
func (m *Manager) release(ctx context.Context, p *pod) error {
	network := make(chan error, 1)
	detach := func() { network <- m.disconnect(ctx, p) }
	if m.opts.Plugins == nil {
		go detach()
	}
	err := m.endSandbox(ctx, p)
	if m.opts.Plugins != nil {
		m.tellPodStopped(ctx, p) // while its network is there
		go detach()
	}
	if err == nil {
		err = m.removeGroup(ctx, p)
	}
	return errors.Join(err, <-network)
}

// endSandbox kills the sandbox and sees to it that every container's end is on
// record.
func (m *Manager) endSandbox(ctx context.Context, p *pod) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	var err error
	if sb := p.getSandbox(); sb != nil {
		err = sb.Kill(ctx)
	} else {
		err = m.opts.Engine.Reap(ctx, p.id()) // booted by an earlier daemon, or not at all
	}
	if err != nil {
		return fmt.Errorf("end sandbox: %w", err)
	}
	for _, c := range p.members() {
		if err := m.awaitEnd(ctx, c); err != nil {
			return fmt.Errorf("end sandbox: %w", err)
		}
	}
	p.setSandbox(nil)
	return m.tellEnd(p, func() error { return nil }) // the pod's record said it before
}

// awaitEnd waits until a container of an ended sandbox is recorded as Exited.
// One that nobody waits for is recorded here.
func (m *Manager) awaitEnd(ctx context.Context, c *container) error {
	switch c.phase() {
	case lifecycle.Created, lifecycle.Starting:
		m.containerEnded(c, endedWithPod(c))
		return nil
	case lifecycle.Running:
		select {
		case <-c.ended:
		case <-time.After(2 * time.Second):
			m.containerEnded(c, endedWithPod(c))
		case <-ctx.Done():
			return fmt.Errorf("container %s: %w", c.id(), context.Cause(ctx))
		}
	}
	return nil
}

// disconnect gives back the pod's addresses, then its namespace. The network's
// own cache knows what to undo, also when the namespace is gone.
//
// Only a pod that is not Ready on record gives back its addresses. Else a daemon
// that is started before the sandbox is killed would adopt it without a network.
// And the network's cache is on the same disk: an attachment that cannot be taken
// off it would claim addresses that another pod has by the time of the next DEL,
// and some plugins delete rules by address alone.
func (m *Manager) disconnect(ctx context.Context, p *pod) error {
	if p.hostNetwork() {
		return nil
	}
	if err := p.Save(); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Network)
	defer cancel()
	if err := m.opts.CNI.Detach(ctx, m.networkPod(p)); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	if err := network.RemoveNamespace(m.paths.netns(p.id())); err != nil {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

func (m *Manager) removeGroup(ctx context.Context, p *pod) error {
	g := p.getGroup()
	if g == nil {
		return nil
	}
	if err := g.Delete(ctx); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	p.setGroup(nil)
	return nil
}

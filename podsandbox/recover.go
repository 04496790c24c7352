package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/semaphore"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// recoverParallel is how many pods are taken over at once: the work is waiting for
// sandboxes to answer.
const recoverParallel = 8

// recoverPatience is how long Recover waits for sandboxes that are slow to answer. The
// pods of those are taken over behind its back.
const recoverPatience = 500 * time.Millisecond

// Recover makes the manager what the earlier daemon was. It waits for nobody but the
// disk: what needs the network, or a sandbox that does not answer, goes on in the
// background, pod by pod, and is tried again until it succeeds. In this order:
//
//  1. records are loaded; a damaged one is set aside and becomes a leftover;
//  2. each pod is taken over, by its phase (see takeOver);
//  3. addresses of pods that are not on record are freed, by CNI GC, and what else no
//     record owns is removed.
func (m *Manager) Recover(ctx context.Context) error {
	damaged, err := m.State.Load()
	if err != nil {
		return err
	}
	for _, err := range damaged {
		klog.ErrorS(err, "Damaged record")
	}
	t := &takeover{m}
	t.takeOverAll(ctx)
	m.work.Until("free addresses of pods that are gone", m.timeouts.operation(), t.collectAddresses)
	if m.opts.RemoveLeftovers != nil {
		m.work.Until("remove leftovers", m.timeouts.operation(), m.opts.RemoveLeftovers)
	}
	return nil
}

// takeover is a manager while it takes over what an earlier daemon left.
type takeover struct{ *Manager }

// takeOverAll takes over every pod, and returns when that is done, or has taken too
// long.
func (m *takeover) takeOverAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	slots := semaphore.NewWeighted(recoverParallel)
	var tried []<-chan struct{}
	for _, p := range m.State.Pods() {
		tried = append(tried, m.finish("take over pod "+p.ID(), func(ctx context.Context) error {
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			defer slots.Release(1)
			return m.takeOver(ctx, p)
		}))
	}
	late := 0
	for _, done := range tried {
		select {
		case <-done:
		case <-ctx.Done():
			late++
		}
	}
	if late > 0 {
		klog.InfoS("Pods are still being taken over", "pods", late)
	}
}

// takeOver takes over a pod from an earlier daemon, by its phase:
//
//   - Ready: its sandbox is adopted; one that is gone makes it Dead;
//   - Creating, and what was being undone: it is undone;
//   - Stopping and Removing: that is finished;
//   - of another boot of the node: it is Dead, and gives back what it holds.
//
// An error means that it is not known yet what became of the pod; then this is to be
// tried again.
func (m *takeover) takeOver(ctx context.Context, p *state.Pod) error {
	release, err := p.Exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	if p.Sandbox() != nil {
		return nil
	}
	if err := findGroup(p); err != nil {
		return err
	}
	st := p.Status()
	switch {
	case st.Phase == lifecycle.Removing:
		m.endMembers(ctx, p, true, endedWithPod)
		m.finish("remove pod "+p.ID(), func(ctx context.Context) error { return m.RemovePodSandbox(ctx, p.ID()) })
	case st.Phase == lifecycle.Creating, st.Abandoned:
		m.undoLater(p)
	case st.Phase == lifecycle.Stopping:
		m.endMembers(ctx, p, true, endedWithPod)
		m.finish("stop pod "+p.ID(), func(ctx context.Context) error { return m.StopPodSandbox(ctx, p.ID()) })
	case st.Phase == lifecycle.Stopped:
		m.endMembers(ctx, p, true, endedWithPod)
	case st.BootID != m.bootID:
		err = m.endAfterReboot(ctx, p)
	case st.Phase == lifecycle.Dead:
		m.endMembers(ctx, p, true, endedWithPod)
	default:
		err = m.adopt(ctx, p)
	}
	if err == nil {
		p.TakenOver()
	}
	return err
}

func findGroup(p *state.Pod) error {
	g, err := cgroup.Load(p.Config().GetLinux().GetCgroupParent(), p.ID())
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the cgroup: %w", err)
	}
	p.SetGroup(g)
	return nil
}

// adopt takes over the sandbox of a ready pod, or records its death. Only what is known
// to be gone is dead: after any other error the pod is as it was, and answers
// errdefs.ErrUnavailable until more is known.
func (m *takeover) adopt(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeouts.sandbox)
	defer cancel()
	e, err := m.host.engineOf(p)
	if err != nil {
		return err
	}
	cfg, err := m.host.engineConfig(p)
	if err != nil {
		return err
	}
	sb, err := e.Adopt(ctx, cfg, p.Status().Process)
	if errdefs.IsNotFound(err) {
		klog.ErrorS(err, "A sandbox is gone; its pod is dead", "pod", p.ID())
		if err := e.Reap(ctx, p.ID()); err != nil {
			return fmt.Errorf("end what is left of its sandbox: %w", err)
		}
		m.endMembers(ctx, p, true, endedWithPod)
		m.sandboxDied(p)
		return nil
	}
	if err != nil {
		return fmt.Errorf("adopt its sandbox: %w", err)
	}
	for _, id := range p.Lost { // another is made in its place, and must be alone
		if err := sb.Destroy(ctx, id); err != nil {
			klog.ErrorS(err, "Failed to end a container without a record", "container", id)
		}
	}
	p.SetSandbox(sb)
	m.watchSandbox(p, sb)
	m.recoverContainers(ctx, p, sb)
	// An update may have been cut off between the record and the cgroup.
	m.Resources.Shrink(p)
	m.work.Go("show limits in pod "+p.ID(), func(context.Context) { m.Resources.ShowAll(p, sb) })
	return nil
}

// endAfterReboot records that a pod of an earlier boot is dead, and lets it give back
// its addresses.
func (m *takeover) endAfterReboot(ctx context.Context, p *state.Pod) error {
	why := "the node was restarted"
	if st := p.Status(); st.BootID == "" { // of a status that was lost
		why = st.Message
	}
	m.endMembers(ctx, p, false, func(*state.Container) end {
		return end{at: time.Now(), code: 255, reason: state.ReasonUnknown, message: why}
	})
	err := p.ForceTransition(lifecycle.Died, func(st *record.PodStatus) { st.Message = why })
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return err
	}
	m.finish("give back what pod "+p.ID()+" held", func(ctx context.Context) error {
		release, err := p.Exclusive(ctx)
		if err != nil {
			return err
		}
		defer release()
		if p.Phase() != lifecycle.Dead {
			return nil // a stop or a removal was faster, or is to be asked again
		}
		return m.giveBack(ctx, p)
	})
	return nil
}

// finish brings to an end what was begun with a pod and nobody asks for any more.
func (m *Manager) finish(what string, work func(context.Context) error) (tried <-chan struct{}) {
	return m.work.Until(what, m.timeouts.operation(), work)
}

// collectAddresses lets CNI free the addresses of pods that are not ours any more.
func (m *takeover) collectAddresses(ctx context.Context) error {
	return m.opts.CNI.GC(ctx, func() (valid []network.Pod) {
		for _, p := range m.State.Pods() {
			if p.NetNS != "" {
				valid = append(valid, network.Pod{ID: p.ID()})
			}
		}
		return valid
	})
}

package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// RemovePodSandbox deletes a pod with its containers, stopping it first. An
// unknown pod is no error.
func (m *Manager) RemovePodSandbox(ctx context.Context, id string) error {
	p, err := m.State.FindPod(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	err = m.join(ctx, "remove pod "+p.ID(), func(ctx context.Context) error { return m.removePod(ctx, p) })
	if err != nil {
		return fmt.Errorf("remove pod %s: %w", p.ID(), err)
	}
	return nil
}

// removePod deletes a pod, step by step; each may have been done before. The record goes
// last.
func (m *Manager) removePod(ctx context.Context, p *state.Pod) error {
	if p.Phase() != lifecycle.Removing {
		if err := m.StopPodSandbox(ctx, p.ID()); err != nil {
			return err
		}
	}
	if err := p.Transition(lifecycle.Remove, nil); err != nil {
		return err
	}
	if err := p.WaitIdle(ctx); err != nil {
		return err
	}
	for _, c := range p.Containers() {
		if err := m.deleteContainer(ctx, c); err != nil {
			return err
		}
	}
	m.opts.Plugins.RemovePod(ctx, nri.PodOf(p))
	crashpoint.Here("before pod directory removal")
	if err := os.RemoveAll(m.paths.Pod(p.ID())); err != nil {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	crashpoint.Here("after pod directory removal")
	if err := m.State.DeletePod(p); err != nil {
		return err
	}
	m.Stats.Forget(p.ID())
	return nil
}

// rollBack undoes a pod that did not become Ready, and returns when that was tried once.
// What cannot be undone now stays in the record as abandoned: it is tried again until it
// can be, by this daemon or the next.
func (m *Manager) rollBack(p *state.Pod) { <-m.undoLater(p) }

// undoLater undoes a pod that nobody was told of. Its identity is free at once: a retry
// of the request must not find this one, nor wait for a network that does not answer.
func (m *Manager) undoLater(p *state.Pod) (tried <-chan struct{}) {
	m.State.FreeName(p)
	return m.finish("undo pod "+p.ID(), func(ctx context.Context) error {
		if p.Phase() == lifecycle.Creating {
			err := p.ForceTransition(lifecycle.Stop, func(st *record.PodStatus) { st.Abandoned = true })
			if err != nil && !errors.Is(err, record.ErrNotPersisted) {
				return err
			}
		}
		// A caller who sees the pod may stop or remove it meanwhile, and joins.
		return m.RemovePodSandbox(ctx, p.ID())
	})
}

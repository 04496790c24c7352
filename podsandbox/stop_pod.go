package podsandbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// StopPodSandbox ends the pod's processes and gives back what it holds on the
// host. A stopped or unknown pod is no error. After a failure the pod is Stopping, and the
// next call goes on.
func (m *Manager) StopPodSandbox(ctx context.Context, id string) error {
	p, err := m.State.FindPod(id)
	if errdefs.IsNotFound(err) {
		return nil // CRI: idempotent
	}
	if err != nil {
		return err
	}
	err = m.join(ctx, "stop pod "+p.ID(), func(ctx context.Context) error { return m.stopPod(ctx, p) })
	if err != nil {
		return fmt.Errorf("stop pod %s: %w", p.ID(), err)
	}
	return nil
}

func (m *Manager) stopPod(ctx context.Context, p *state.Pod) error {
	release, err := p.Exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	switch p.Phase() {
	case lifecycle.Stopped:
		return nil
	case lifecycle.Creating:
		return fmt.Errorf("it is still being created: %w", errdefs.ErrFailedPrecondition)
	}
	// Whatever the disk says, nothing of the pod runs on. What is given back only on
	// record fails then, and so does the request.
	err = p.ForceTransition(lifecycle.Stop, nil)
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return err
	}
	if err := m.giveBack(ctx, p); err != nil {
		return err
	}
	return p.Transition(lifecycle.Released, nil)
}

package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// recoverContainers takes over the containers of an adopted sandbox.
func (m *takeover) recoverContainers(ctx context.Context, p *state.Pod, sb engine.Sandbox) {
	members := p.Containers()
	slices.SortStableFunc(members, func(a, b *state.Container) int { return startingLast(a) - startingLast(b) })
	for _, c := range members {
		if err := m.recoverContainer(ctx, c, sb); err != nil {
			klog.ErrorS(err, "Failed to recover a container", "container", c.ID(), "phase", c.Phase())
		}
	}
}

// startingLast is 1 for a container whose start was cut off: it may need what the
// others have.
func startingLast(c *state.Container) int {
	if c.Phase() == lifecycle.Starting {
		return 1
	}
	return 0
}

// recoverContainer takes over a container of an adopted sandbox, by its phase:
//
//   - Creating and Removing: it is removed;
//   - Created: its streams are kept;
//   - Starting: it is Running or, when the sandbox never started it, Created again;
//   - Running: it is waited for, so that an exit which happened meanwhile is learned;
//   - Exited: it is ended in the sandbox.
func (m *takeover) recoverContainer(ctx context.Context, c *state.Container, sb engine.Sandbox) error {
	switch c.Phase() {
	case lifecycle.Creating, lifecycle.Removing:
		return m.deleteContainer(ctx, c)
	case lifecycle.Created:
		return m.Streams.Reopen(c)
	case lifecycle.Exited:
		// The record may have come before, or be that of a status that was lost.
		return sb.Destroy(ctx, c.ID())
	case lifecycle.Starting:
		return m.recoverStarting(ctx, c, sb)
	case lifecycle.Running:
		known, err := m.specs.engineContainer(c)
		if err = errors.Join(err, sb.Learn(ctx, known)); err != nil {
			klog.ErrorS(err, "A container's volumes are not shared with others", "container", c.ID())
		}
		return m.followRunning(ctx, c, sb)
	}
	return nil
}

// recoverStarting finds out what became of a start whose caller died.
func (m *takeover) recoverStarting(ctx context.Context, c *state.Container, sb engine.Sandbox) error {
	started, err := m.recoverStart(ctx, c, sb)
	if err == nil && !started {
		return m.returnToCreated(ctx, c, sb)
	}
	if errdefs.IsInvalidArgument(err) {
		serr := m.Streams.Reopen(c)
		m.containerEnded(c, failedToStart(err))
		return errors.Join(err, serr)
	}
	// Also when that cannot be told: the wait will.
	err = c.ForceTransition(lifecycle.Started, func(st *record.ContainerStatus) { st.StartedAt = startTime(c) })
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return err
	}
	return m.followRunning(ctx, c, sb)
}

// recoverStart asks whether a container was started, and brings its start to an end.
func (m *takeover) recoverStart(ctx context.Context, c *state.Container, sb engine.Sandbox) (started bool, err error) {
	known, err := m.specs.engineContainer(c)
	if err != nil { // it may run all the same
		return true, fmt.Errorf("read what it was to be: %w", errdefs.ErrInternal.WithMessage(err.Error()))
	}
	return sb.Recover(ctx, known)
}

// followRunning waits for the end of a container that an earlier daemon has started.
func (m *takeover) followRunning(ctx context.Context, c *state.Container, sb engine.Sandbox) error {
	err := m.Streams.Reopen(c)
	if err == nil {
		err = m.Streams.RecoverStdio(c, sb)
	}
	m.watchContainer(c, sb)
	if c.Status().OOMKilled { // the signal may not have been sent
		err = errors.Join(err, c.Signal(ctx, unix.SIGKILL, true))
	}
	return err
}

// returnToCreated makes a container Created again whose start did not arrive, for the
// caller to start: it has not run, and must not be told to have failed.
func (m *takeover) returnToCreated(ctx context.Context, c *state.Container, sb engine.Sandbox) error {
	if err := sb.Destroy(ctx, c.ID()); err != nil { // the place that it was given
		return err
	}
	err := c.ForceTransition(lifecycle.StartLost, nil)
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return err
	}
	return m.Streams.Reopen(c)
}

package podsandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// StopContainer sends the stop signal, waits for the grace period and kills what
// is left. A container that does not run is no error. A later call with a shorter
// grace period wins over an earlier one. One that does not end even so is
// DeadlineExceeded, some seconds after the grace period.
func (m *Manager) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	c, err := m.State.FindContainer(id)
	if errdefs.IsNotFound(err) {
		return nil // CRI: idempotent
	}
	if err != nil {
		return err
	}
	_, err = background.Do(ctx, m.work, "stop container "+c.ID(), max(grace, 0)+m.timeouts.kill(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.stopContainer(ctx, c, grace)
	})
	if err != nil {
		return fmt.Errorf("stop container %s: %w", c.ID(), err)
	}
	return nil
}

func (m *Manager) stopContainer(ctx context.Context, c *state.Container, grace time.Duration) error {
	if err := awaitStart(ctx, c); err != nil {
		return err
	}
	if c.Phase() != lifecycle.Running {
		return nil
	}
	if grace > 0 {
		ended, err := askToEnd(ctx, c, grace)
		if ended || err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeouts.kill())
	defer cancel()
	if err := c.Signal(ctx, unix.SIGKILL, true); err != nil {
		return err
	}
	select {
	case <-c.Ended():
		return nil
	case <-ctx.Done():
		// It may wait for the host, as on a network file system that is away. Its end
		// is recorded when it comes. Others of the pod may well go on, so only who asks
		// for the pod's end ends them.
		return fmt.Errorf("it did not end after SIGKILL; stopping its pod ends it: %w", context.Cause(ctx))
	}
}

// askToEnd sends the stop signal and waits for the end, for so long. A sandbox that does
// not take the signal is given no more time for that.
func askToEnd(ctx context.Context, c *state.Container, grace time.Duration) (ended bool, _ error) {
	graceful, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := signalOnce(graceful, c); err != nil && graceful.Err() == nil {
		return false, err
	}
	select {
	case <-c.Ended():
		return true, nil
	case <-graceful.Done():
	}
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("wait for its end: %w", err) // the grace period is not over
	}
	return false, nil
}

// awaitStart waits while a container is being started: the sandbox may not know it
// yet, and a signal would be lost.
func awaitStart(ctx context.Context, c *state.Container) error {
	tick := time.NewTicker(5 * time.Millisecond) // a start takes some tens
	defer tick.Stop()
	for c.Phase() == lifecycle.Starting {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for its start: %w", context.Cause(ctx))
		}
	}
	return nil
}

// signalOnce sends the stop signal, unless that was done before.
func signalOnce(ctx context.Context, c *state.Container) error {
	if !c.FirstStopSignal() {
		return nil
	}
	return c.Signal(ctx, unix.Signal(c.Meta.StopSignal), false)
}

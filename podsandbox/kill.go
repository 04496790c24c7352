package podsandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
)

// StopContainer sends the stop signal, waits for the grace period and kills what
// is left. A container that does not run is no error. A later call with a shorter
// grace period wins over an earlier one.
func (m *Manager) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	c, err := m.findContainer(id)
	if errdefs.IsNotFound(err) {
		return nil // CRI: idempotent
	}
	if err != nil {
		return err
	}
	limit := max(grace, 0) + m.opts.Timeouts.Sandbox
	done := make(chan error, 1)
	m.goTask(func() {
		ctx, cancel := cleanupContext(ctx, limit)
		defer cancel()
		defer context.AfterFunc(m.life, cancel)() // the caller will ask the next daemon
		done <- m.stopContainer(ctx, c, grace)
	})
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("stop container %s: %w", c.id(), err)
	}
	return nil
}

func (m *Manager) stopContainer(ctx context.Context, c *container, grace time.Duration) error {
	if err := awaitStart(ctx, c); err != nil {
		return err
	}
	if c.phase() != lifecycle.Running {
		return nil
	}
	if grace > 0 {
		if err := m.signalOnce(ctx, c); err != nil {
			return err
		}
		if ended(ctx, c, grace) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for its end: %w", err) // the grace period is not over
		}
	}
	if err := m.signal(ctx, c, int(unix.SIGKILL), true); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it did not end after SIGKILL: %w", context.Cause(ctx))
	}
}

// awaitStart waits while a container is being started: the sandbox may not know it
// yet, and a signal would be lost.
func awaitStart(ctx context.Context, c *container) error {
	tick := time.NewTicker(5 * time.Millisecond) // a start takes some tens
	defer tick.Stop()
	for c.phase() == lifecycle.Starting {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for its start: %w", context.Cause(ctx))
		}
	}
	return nil
}

// ended waits for the end of a container, at most so long.
func ended(ctx context.Context, c *container, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.ended:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (m *Manager) signalOnce(ctx context.Context, c *container) error {
	if !c.firstStopSignal() {
		return nil
	}
	return m.signal(ctx, c, c.Meta.StopSignal, false)
}

// signal reaches a running container; one that has ended meanwhile is no error.
func (m *Manager) signal(ctx context.Context, c *container, sig int, all bool) error {
	sb := c.pod.getSandbox()
	if sb == nil {
		return nil
	}
	err := sb.Signal(ctx, c.id(), sig, all)
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		return nil // its wait tells how it ended
	}
	return fmt.Errorf("send %s: %w", unix.SignalName(unix.Signal(sig)), err)
}

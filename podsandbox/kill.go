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
// grace period wins over an earlier one. One that does not end even so is
// DeadlineExceeded, some seconds after the grace period.
func (m *Manager) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	c, err := m.findContainer(id)
	if errdefs.IsNotFound(err) {
		return nil // CRI: idempotent
	}
	if err != nil {
		return err
	}
	limit := max(grace, 0) + m.killPatience()
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
		ended, err := m.askToEnd(ctx, c, grace)
		if ended || err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.killPatience())
	defer cancel()
	if err := m.signal(ctx, c, int(unix.SIGKILL), true); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		// It may wait for the host, as on a network file system that is away. Its end
		// is recorded when it comes. Others of the pod may well go on, so only who asks
		// for the pod's end ends them.
		return fmt.Errorf("it did not end after SIGKILL; stopping its pod ends it: %w", context.Cause(ctx))
	}
}

// killPatience is how long a container may take to end after SIGKILL. That takes
// milliseconds, and more where the pod has little of a processor.
func (m *Manager) killPatience() time.Duration { return min(10*time.Second, m.opts.Timeouts.Sandbox) }

// askToEnd sends the stop signal and waits for the end, for so long. A sandbox that does
// not take the signal is given no more time for that.
func (m *Manager) askToEnd(ctx context.Context, c *container, grace time.Duration) (ended bool, _ error) {
	graceful, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := m.signalOnce(graceful, c); err != nil && graceful.Err() == nil {
		return false, err
	}
	select {
	case <-c.ended:
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

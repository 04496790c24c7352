package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// RemoveContainer deletes a container, killing it first when it runs: CRI asks
// for forcible removal. An unknown container is no error.
func (m *Manager) RemoveContainer(ctx context.Context, id string) error {
	c, err := m.State.FindContainer(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	err = m.join(ctx, "remove container "+c.ID(), func(ctx context.Context) error {
		if err := c.AwaitCreation(ctx); err != nil {
			return err
		}
		if err := m.stopContainer(ctx, c, 0); err != nil {
			return err
		}
		return m.deleteContainer(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("remove container %s: %w", c.ID(), err)
	}
	return nil
}

// rollBackContainer undoes a container that did not become Created. What cannot be undone
// now is tried again.
func (m *Manager) rollBackContainer(ctx context.Context, c *state.Container) {
	ctx, cancel := m.work.Context(ctx, m.timeouts.sandbox)
	defer cancel()
	if err := m.deleteContainer(ctx, c); err != nil {
		klog.ErrorS(err, "Failed to undo a container that was not created; it will be tried again", "container", c.ID())
		m.work.Retry("undo container "+c.ID(), m.timeouts.operation(), func(ctx context.Context) error {
			return m.RemoveContainer(ctx, c.ID())
		})
	}
}

// deleteContainer deletes all that a container without processes has. It may be
// asked for by the container's and the pod's removal at once, and is done once.
func (m *Manager) deleteContainer(ctx context.Context, c *state.Container) error {
	return m.join(ctx, "delete container "+c.ID(), func(ctx context.Context) error {
		if now, err := m.State.FindContainer(c.ID()); err != nil || now != c {
			return nil
		}
		return m.deleteParts(ctx, c)
	})
}

// deleteParts deletes a container part by part. The record goes last, so a crash in
// between is taken up again.
func (m *Manager) deleteParts(ctx context.Context, c *state.Container) error {
	announced := !state.Hidden(c.Phase())
	if err := c.Transition(lifecycle.Remove, nil); err != nil {
		return err
	}
	m.opts.Plugins.ContainerRemoved(ctx, c)
	if err := c.CloseStreams(); err != nil {
		klog.ErrorS(err, "Failed to close the streams of a container", "container", c.ID())
	}
	if err := errors.Join(destroyInSandbox(ctx, c), m.files.Unmount(ctx, c)); err != nil {
		return err
	}
	// Only now: a directory that is still a mount must not be walked into.
	crashpoint.Here("before container directory removal")
	if err := os.RemoveAll(m.paths.Container(c.Pod.ID(), c.ID())); err != nil {
		return fmt.Errorf("remove container directory: %w", err)
	}
	crashpoint.Here("after container directory removal")
	if err := m.State.DeleteContainer(c, announced); err != nil {
		return err
	}
	m.Stats.Forget(c.ID())
	m.Resources.Forget(c.ID())
	m.Resources.Shrink(c.Pod)
	return nil
}

func destroyInSandbox(ctx context.Context, c *state.Container) error {
	sb := c.Pod.Sandbox()
	if sb == nil {
		return c.Pod.RequireTakenOver()
	}
	err := sb.Destroy(ctx, c.ID())
	if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy in the sandbox: %w", err)
	}
	return nil
}

package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
)

// RemoveContainer deletes a container, killing it first when it runs: CRI asks
// for forcible removal. An unknown container is no error.
func (m *Manager) RemoveContainer(ctx context.Context, id string) error {
	c, err := m.findContainer(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = join(ctx, m, "kill/"+c.id(), m.opts.Timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		if err := awaitMade(ctx, c); err != nil {
			return struct{}{}, err
		}
		if err := m.stopContainer(ctx, c, 0); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.removeContainer(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("remove container %s: %w", c.id(), err)
	}
	return nil
}

// awaitMade waits while a container is being created: plugins, and who lists while
// they are asked, know its id by then.
func awaitMade(ctx context.Context, c *container) error {
	if c.made == nil {
		return nil
	}
	select {
	case <-c.made:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for its creation: %w", context.Cause(ctx))
	}
}

// discard undoes a container that did not become Created. What cannot be undone
// now is tried again, as by abandon.
func (m *Manager) discard(ctx context.Context, c *container) {
	ctx, cancel := cleanupContext(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	if err := m.removeContainer(ctx, c); err != nil {
		klog.ErrorS(err, "Undo a container that was not created; it will be tried again", "container", c.id())
		m.persist(func(ctx context.Context) error { return m.RemoveContainer(ctx, c.id()) })
	}
}

// removeContainer deletes all that a container without processes has. It may be
// asked for by the container's and the pod's removal at once, and is done once.
func (m *Manager) removeContainer(ctx context.Context, c *container) error {
	_, err := join(ctx, m, "delete/"+c.id(), m.opts.Timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		if now, err := m.findContainer(c.id()); err != nil || now != c {
			return struct{}{}, nil
		}
		return struct{}{}, m.deleteContainer(ctx, c)
	})
	return err
}

// deleteContainer deletes a container's parts. The record goes last, so a crash in
// between is taken up again.
func (m *Manager) deleteContainer(ctx context.Context, c *container) error {
	announced := !hidden(c.phase())
	if err := c.apply(lifecycle.Remove, nil); err != nil {
		return err
	}
	m.tellContainerRemoved(ctx, c)
	if s := c.takeStreams(); s != nil {
		if err := s.Close(); err != nil {
			klog.ErrorS(err, "Close the streams of a container", "container", c.id())
		}
	}
	err := errors.Join(
		m.destroyInSandbox(ctx, c),
		m.unmount(ctx, c),
	)
	if err != nil {
		return err
	}
	// Only now: a folder that is still a mount must not be walked into.
	crashpoint.Here("before container folder removal")
	if err := os.RemoveAll(m.paths.container(c.pod.id(), c.id())); err != nil {
		return fmt.Errorf("remove container folder: %w", err)
	}
	crashpoint.Here("after container folder removal")
	drop := func() error {
		if err := c.Delete(); err != nil {
			return fmt.Errorf("remove record: %w", err)
		}
		m.dropContainer(c)
		m.stats.forget(c.id())
		c.markEnded()
		return nil
	}
	if announced {
		err = m.tell(c.pod, c.id(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, drop)
	} else {
		err = drop()
	}
	if err == nil {
		m.shrinkGroup(c.pod)
	}
	return err
}

func (m *Manager) destroyInSandbox(ctx context.Context, c *container) error {
	sb := c.pod.getSandbox()
	if sb == nil {
		return nil
	}
	err := sb.Destroy(ctx, c.id())
	if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy in the sandbox: %w", err)
	}
	return nil
}

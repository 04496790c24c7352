package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// StartContainer runs a created container. One that cannot start becomes Exited
// with the reason StartError.
func (m *Manager) StartContainer(ctx context.Context, id string) error {
	c, err := m.findContainer(id)
	if err != nil {
		return err
	}
	_, err = join(ctx, m, "start/"+c.id(), m.opts.Timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.start(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.id(), err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, c *container) error {
	sandbox, leave, err := c.pod.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := c.apply(lifecycle.Start, nil); err != nil {
		return err
	}
	adjustOOMScore(c.pod, sandbox)
	if err := m.startInSandbox(ctx, sandbox, c); err != nil {
		m.containerEnded(c, failedToStart(err))
		return err
	}
	err = m.tell(c.pod, c.id(), runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, func() error {
		return c.note(lifecycle.Started, func(st *record.ContainerStatus) { st.StartedAt = startedNow(c) })
	})
	if errors.Is(err, record.ErrUnsaved) {
		klog.ErrorS(err, "Record the start of a container; it will be tried again", "container", c.id())
		m.persist(func(context.Context) error { return c.Save() })
	} else if err != nil {
		return err
	}
	m.watchContainer(c, sandbox)
	m.tellAfter(ctx, m.opts.Plugins.ContainerStarted, c)
	return nil
}

func (m *Manager) startInSandbox(ctx context.Context, sandbox engine.Sandbox, c *container) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	ec, err := m.engineContainer(c)
	if err != nil {
		return err
	}
	if err := m.checkPIDNamespace(c, ec.Spec); err != nil {
		return err
	}
	if err := m.opts.Plugins.StartContainer(ctx, m.pluginPod(c.pod), pluginContainer(c, ec.Spec)); err != nil {
		return err
	}
	streams := c.getStreams()
	if streams == nil {
		return fmt.Errorf("its streams are closed, it ends with its pod: %w", errdefs.ErrFailedPrecondition)
	}
	files, err := openStdio(c, streams)
	if err != nil {
		return fmt.Errorf("open streams: %w", err)
	}
	defer files.close()
	shown := c.resources() // updated since it was created, maybe
	ec.Spec.Linux.Resources = spec.Limits(shown)
	ec.Stdio, ec.Hold = files.stdio, files.hold
	if err := sandbox.Start(ctx, ec); err != nil {
		return err
	}
	if c.resources() != shown {
		c.updating.Lock()
		err := showLimits(ctx, c, sandbox)
		c.updating.Unlock()
		if err != nil {
			klog.ErrorS(err, "Show a container its limits", "container", c.id())
		}
	}
	return files.connect(c)
}

// engineContainer is what the sandbox needs to know of a container, without its files.
// After an error it is as much of it as can be read.
func (m *Manager) engineContainer(c *container) (engine.Container, error) {
	ec := engine.Container{ID: c.id(), HostSockets: m.reachesSockets(c.config().GetMounts())}
	var err, werr error
	ec.Spec, err = c.Spec()
	ec.Writes, werr = c.Writes()
	return ec, errors.Join(err, werr)
}

// watchContainer waits for the end of a running container, as long as the manager
// lives, and sees to it that its memory limit holds.
func (m *Manager) watchContainer(c *container, sandbox engine.Sandbox) {
	m.watchMemory(c.pod)
	m.goTask(func() {
		status, err := sandbox.Wait(m.life, c.id())
		if m.life.Err() != nil {
			return // the next daemon will ask again
		}
		if err != nil {
			klog.V(2).InfoS("Wait for a container", "container", c.id(), "err", err)
		}
		m.containerEnded(c, m.endOf(c, status, err))
	})
}

// startedNow is a start's time: never before the creation, however the node's
// clock was set in between. So it is for an end; see recordEnd.
func startedNow(c *container) int64 { return max(time.Now().UnixNano(), c.Meta.CreatedAt) }

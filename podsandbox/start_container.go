package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// StartContainer runs a created container. One that cannot start becomes Exited
// with the reason StartError.
func (m *Manager) StartContainer(ctx context.Context, id string) error {
	c, err := m.State.FindContainer(id)
	if err != nil {
		return err
	}
	err = m.join(ctx, "start container "+c.ID(), func(ctx context.Context) error { return m.startContainer(ctx, c) })
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID(), err)
	}
	return nil
}

func (m *Manager) startContainer(ctx context.Context, c *state.Container) error {
	sandbox, done, err := c.Pod.BeginOperation()
	if err != nil {
		return err
	}
	defer done()
	err = c.Transition(lifecycle.Start, func(st *record.ContainerStatus) { st.OOMKills = oomKills(c.Pod) })
	if err != nil {
		return err
	}
	resources.AdjustOOMScore(c.Pod, sandbox)
	if err := m.startInSandbox(ctx, sandbox, c); err != nil {
		m.containerEnded(c, failedToStart(err))
		return err
	}
	err = c.ForceTransition(lifecycle.Started, func(st *record.ContainerStatus) { st.StartedAt = startTime(c) })
	if errors.Is(err, record.ErrNotPersisted) {
		klog.ErrorS(err, "Failed to record the start of a container; it will be tried again", "container", c.ID())
		m.work.Retry("record container "+c.ID(), m.timeouts.sandbox, func(context.Context) error { return c.Persist() })
	} else if err != nil {
		return err
	}
	m.watchContainer(c, sandbox)
	if m.opts.Plugins != nil {
		m.opts.Plugins.ContainerStarted(ctx, nri.PodOf(c.Pod), nri.ContainerOf(c, nil))
	}
	return nil
}

func (m *Manager) startInSandbox(ctx context.Context, sandbox engine.Sandbox, c *state.Container) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeouts.sandbox)
	defer cancel()
	ec, err := m.specs.engineContainer(c)
	if err != nil {
		return err
	}
	if err := m.specs.checkPIDNamespace(c, ec.Spec); err != nil {
		return err
	}
	if err := m.opts.Plugins.StartContainer(ctx, nri.PodOf(c.Pod), nri.ContainerOf(c, ec.Spec)); err != nil {
		return err
	}
	stdio, err := m.Streams.OpenStdio(c)
	if err != nil {
		return fmt.Errorf("open streams: %w", err)
	}
	defer stdio.Close()
	stdio.Give(&ec)
	shown := c.Resources() // updated since it was created, maybe
	ec.Spec.Linux.Resources = spec.Limits(shown)
	if err := sandbox.Start(ctx, ec); err != nil {
		return err
	}
	if c.Resources() != shown {
		c.Updating.Lock()
		err := resources.Show(ctx, c, sandbox)
		c.Updating.Unlock()
		if err != nil {
			klog.ErrorS(err, "Failed to show a container its limits", "container", c.ID())
		}
	}
	return stdio.Connect(c)
}

// watchContainer waits for the end of a running container, as long as the manager
// lives, and sees to it that its memory limit holds.
func (m *Manager) watchContainer(c *state.Container, sandbox engine.Sandbox) {
	m.Resources.WatchMemory(c.Pod)
	m.work.Go("wait for container "+c.ID(), func(life context.Context) {
		status, err := sandbox.Wait(life, c.ID())
		if life.Err() != nil {
			return // the next daemon will ask again
		}
		if err != nil {
			klog.V(2).InfoS("Failed to wait for a container", "container", c.ID(), "err", err)
		}
		m.containerEnded(c, endOf(c, status, err))
	})
}

// startTime is that of a start now: never before the creation, however the node's
// clock was set in between. So it is for an end; see containerEnded.
func startTime(c *state.Container) int64 { return max(time.Now().UnixNano(), c.Meta.CreatedAt) }

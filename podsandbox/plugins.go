package podsandbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// StartPlugins lets NRI plugins in. Recover must have returned.
func (m *Manager) StartPlugins() error {
	return m.opts.Plugins.Start(nri.Callbacks{
		List: m.listForPlugins, Update: m.Resources.UpdateForPlugin, Evict: m.evictForPlugin, Inject: m.specs.injectForPlugins,
	})
}

func (m *Manager) listForPlugins() (pods []nri.Pod, containers []nri.Container) {
	for _, p := range m.State.Pods() {
		pods = append(pods, nri.PodOf(p))
	}
	for _, c := range m.State.Containers() {
		switch c.Phase() {
		case lifecycle.Exited, lifecycle.Removing:
		default:
			containers = append(containers, nri.ContainerOf(c, nil))
		}
	}
	return pods, containers
}

func (m *Manager) evictForPlugin(ctx context.Context, id, reason string) error {
	c, err := m.State.FindContainer(id)
	if err != nil {
		return err
	}
	err = c.Force(func(st *record.ContainerStatus) error {
		if st.Phase != lifecycle.Running && st.Phase != lifecycle.Starting {
			return fmt.Errorf("container %s is %s: %w", c.ID(), st.Phase, errdefs.ErrFailedPrecondition)
		}
		st.Evicted = reason
		if reason == "" {
			st.Evicted = "no reason given"
		}
		return nil
	})
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return err
	}
	return m.StopContainer(ctx, c.ID(), 0)
}

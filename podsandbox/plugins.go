package podsandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// StartPlugins lets NRI plugins in. Recover must have returned.
func (m *Manager) StartPlugins() error {
	return m.opts.Plugins.Start(nri.Callbacks{
		List: m.listForPlugins, Update: m.updateForPlugin, Evict: m.evictForPlugin, Inject: m.injectNamed,
	})
}

func (m *Manager) listForPlugins() (pods []nri.Pod, containers []nri.Container) {
	for _, p := range m.allPods() {
		pods = append(pods, m.pluginPod(p))
	}
	for _, c := range m.allContainers() {
		switch c.phase() {
		case lifecycle.Exited, lifecycle.Removing:
		default:
			containers = append(containers, pluginContainer(c, nil))
		}
	}
	return pods, containers
}

func (m *Manager) pluginPod(p *pod) nri.Pod {
	st, linux := p.Status(), p.config().GetLinux()
	out := nri.Pod{
		ID: p.id(), Handler: p.Meta.Handler, Config: p.config(), IPs: st.IPs, PID: st.Process.PID,
		Resources: linux.GetResources(), Overhead: linux.GetOverhead(),
	}
	if st.Resources != nil {
		out.Resources = st.Resources.Proto
	}
	if st.Overhead != nil {
		out.Overhead = st.Overhead.Proto
	}
	if !p.hostNetwork() {
		netns := m.paths.netns(p.id())
		if _, err := os.Stat(netns); err == nil { // a stopped pod has given it back
			out.NetNS = netns
		}
	}
	if g := p.getGroup(); g != nil {
		if paths := g.Paths(); len(paths) > 0 {
			out.Cgroup = paths[0]
		}
	}
	return out
}

// pluginContainer tells of a container; s is its spec, or nil to read it.
func pluginContainer(c *container, s *specs.Spec) nri.Container {
	st := c.Status()
	if s == nil {
		var err error
		if s, err = c.Spec(); err != nil {
			klog.V(2).InfoS("Read the spec of a container for plugins", "container", c.id(), "err", err)
		}
	}
	out := nri.Container{
		ID: c.id(), PodID: c.pod.id(), Config: c.config(), ImageID: c.Meta.ImageID, ImageRef: c.Meta.ImageRef,
		State: nri.Created, CreatedAt: c.Meta.CreatedAt, StartedAt: st.StartedAt, FinishedAt: st.FinishedAt,
		ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message,
		PID: c.pod.Status().Process.PID, Spec: s, Resources: c.resourcesOf(st),
	}
	switch st.Phase {
	case lifecycle.Running:
		out.State = nri.Running
	case lifecycle.Exited, lifecycle.Removing:
		out.State = nri.Stopped
	}
	return out
}

// adjustContainer lets plugins change what was resolved of a request.
func (m *Manager) adjustContainer(ctx context.Context, c *container, s *specs.Spec) error {
	if m.opts.Plugins == nil {
		return nil
	}
	before, err := copySpec(s)
	if err != nil {
		return err
	}
	after, err := copySpec(s)
	if err != nil {
		return err
	}
	change, err := m.opts.Plugins.CreateContainer(ctx, m.pluginPod(c.pod), pluginContainer(c, after))
	if err != nil {
		return err
	}
	if err := spec.AdoptForeign(before, after); err != nil {
		return fmt.Errorf("NRI plugins on CreateContainer: %w", err)
	}
	*s = *after
	if change == nil {
		return nil
	}
	if err := spec.ValidateUpdate("resources by NRI plugins", change); err != nil {
		return err
	}
	return m.adjustResources(c, s, change)
}

// copySpec shares no memory with s.
func copySpec(s *specs.Spec) (*specs.Spec, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("copy spec: %w", err)
	}
	out := new(specs.Spec)
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("copy spec: %w", err)
	}
	return out, nil
}

// adjustResources puts a change by plugins in the place of what was requested.
func (m *Manager) adjustResources(c *container, s *specs.Spec, change *runtimeapi.LinuxContainerResources) error {
	merged := spec.MergeResources(c.resources(), change)
	s.Linux.Resources = spec.Limits(merged)
	s.Process.OOMScoreAdj = new(int(merged.GetOomScoreAdj()))
	_, err := c.Update(func(st *record.ContainerStatus) error {
		st.Resources = &record.Message[*runtimeapi.LinuxContainerResources]{Proto: merged}
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.fitGroup(c.pod); err != nil {
		return fmt.Errorf("resize the pod's cgroup: %w", err)
	}
	return nil
}

// askPluginsToUpdate returns what is to be done of a change of resources.
func (m *Manager) askPluginsToUpdate(ctx context.Context, c *container, change *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error) {
	if m.opts.Plugins == nil {
		return change, nil
	}
	change, err := m.opts.Plugins.UpdateContainer(ctx, m.pluginPod(c.pod), pluginContainer(c, nil), change)
	if err != nil {
		return nil, err
	}
	return change, spec.ValidateUpdate("resources by NRI plugins", change)
}

// updateForPlugin is an update that a plugin asks for; plugins are not told of it.
func (m *Manager) updateForPlugin(ctx context.Context, id string, change *runtimeapi.LinuxContainerResources) error {
	c, err := m.findContainer(id)
	if err != nil {
		return err
	}
	if err := spec.ValidateUpdate("resources by NRI plugins", change); err != nil {
		return err
	}
	ctx, cancel := cleanupContext(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	return m.updateContainer(ctx, c, change)
}

func (m *Manager) evictForPlugin(ctx context.Context, id, reason string) error {
	c, err := m.findContainer(id)
	if err != nil {
		return err
	}
	err = c.Note(func(st *record.ContainerStatus) error {
		if st.Phase != lifecycle.Running && st.Phase != lifecycle.Starting {
			return fmt.Errorf("container %s is %s: %w", c.id(), st.Phase, errdefs.ErrFailedPrecondition)
		}
		st.Evicted = reason
		if reason == "" {
			st.Evicted = "no reason given"
		}
		return nil
	})
	if err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	return m.StopContainer(ctx, c.id(), 0)
}

// tellStopped tells plugins of a container's end. Who comes second waits for the
// first, so that no removal overtakes it.
func (m *Manager) tellStopped(ctx context.Context, c *container) {
	if m.opts.Plugins == nil {
		return
	}
	c.stopTold.Do(func() { m.opts.Plugins.StopContainer(ctx, m.pluginPod(c.pod), pluginContainer(c, nil)) })
}

// tellContainerRemoved tells plugins that a container goes, also one whose
// creation failed half way.
func (m *Manager) tellContainerRemoved(ctx context.Context, c *container) {
	if m.opts.Plugins == nil {
		return
	}
	m.tellStopped(ctx, c)
	m.opts.Plugins.RemoveContainer(ctx, m.pluginPod(c.pod), pluginContainer(c, nil))
}

// tellPodStopped tells plugins of a pod's end once, after those of its containers.
func (m *Manager) tellPodStopped(ctx context.Context, p *pod) {
	p.stopTold.Do(func() {
		for _, c := range p.members() {
			m.tellStopped(ctx, c)
		}
		m.opts.Plugins.StopPod(ctx, m.pluginPod(p))
	})
}

// tellAfter tells plugins of what has succeeded.
func (m *Manager) tellAfter(ctx context.Context, tell func(context.Context, nri.Pod, nri.Container), c *container) {
	if m.opts.Plugins != nil {
		tell(ctx, m.pluginPod(c.pod), pluginContainer(c, nil))
	}
}

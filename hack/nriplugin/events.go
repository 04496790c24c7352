package main

import (
	"context"
	"encoding/json"

	"github.com/containerd/nri/pkg/api"
)

func (p *plugin) Configure(_ context.Context, config, _, _ string) (api.EventMask, error) {
	if config == "" {
		return 0, nil
	}
	var c struct{ Log, Orders string }
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return 0, err
	}
	p.log, p.orders = c.Log, c.Orders
	return 0, nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	e := event{Event: "Synchronize"}
	for _, pod := range pods {
		e.Pods = append(e.Pods, pod.GetName())
	}
	for _, c := range containers {
		e.Containers = append(e.Containers, c.GetName())
	}
	o, err := p.at(e)
	return updates(o.UpdateMemory), err
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("RunPodSandbox", pod)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("StopPodSandbox", pod)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("RemovePodSandbox", pod)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	return p.pod("UpdatePodSandbox", pod)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.pod("PostUpdatePodSandbox", pod)
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	o, err := p.at(told("CreateContainer", pod, c))
	p.setEvict(evictions(o.Evict))
	return o.adjustment(), updates(o.UpdateMemory), err
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.container("PostCreateContainer", pod, c)
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.container("StartContainer", pod, c)
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.container("PostStartContainer", pod, c)
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	e := told("UpdateContainer", pod, c)
	e.Memory = r.GetMemory().GetLimit().GetValue()
	o, err := p.at(e)
	p.setEvict(evictions(o.Evict))
	out := updates(o.UpdateMemory)
	if o.Memory != 0 {
		out = append(out, updates(map[string]int64{c.GetId(): o.Memory})...)
	}
	return out, err
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.container("PostUpdateContainer", pod, c)
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	o, err := p.at(told("StopContainer", pod, c))
	return updates(o.UpdateMemory), err
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	return p.container("RemoveContainer", pod, c)
}

func (p *plugin) pod(name string, pod *api.PodSandbox) error {
	e := event{Event: name, Pod: pod.GetName()}
	for _, ns := range pod.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" {
			e.NetNS = ns.GetPath()
		}
	}
	_, err := p.at(e)
	return err
}

func (p *plugin) container(name string, pod *api.PodSandbox, c *api.Container) error {
	_, err := p.at(told(name, pod, c))
	return err
}

func told(name string, pod *api.PodSandbox, c *api.Container) event {
	return event{
		Event: name, Pod: pod.GetName(), Container: c.GetName(), ID: c.GetId(), State: c.GetState().String(), Env: c.GetEnv(),
		Notes: c.GetAnnotations(), Memory: c.GetLinux().GetResources().GetMemory().GetLimit().GetValue(),
	}
}

// adjustment is the answer to CreateContainer.
func (o order) adjustment() *api.ContainerAdjustment {
	a := &api.ContainerAdjustment{}
	for name, value := range o.Env {
		a.AddEnv(name, value)
	}
	for _, name := range o.Unset {
		a.RemoveEnv(name)
	}
	for name, value := range o.Annotations {
		a.AddAnnotation(name, value)
	}
	for _, m := range o.Mounts {
		a.AddMount(m)
	}
	for _, name := range o.CDI {
		a.AddCDIDevice(&api.CDIDevice{Name: name})
	}
	if o.Device != nil {
		a.AddDevice(o.Device)
	}
	if o.Memory != 0 {
		a.SetLinuxMemoryLimit(o.Memory)
	}
	if o.Pids != 0 {
		a.SetLinuxPidLimits(o.Pids)
	}
	if o.Hook != "" {
		a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: o.Hook}}})
	}
	return a
}

func updates(memory map[string]int64) (out []*api.ContainerUpdate) {
	for id, limit := range memory {
		u := &api.ContainerUpdate{}
		u.SetContainerId(id)
		u.SetLinuxMemoryLimit(limit)
		out = append(out, u)
	}
	return out
}

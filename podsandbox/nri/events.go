package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// RunPod tells of a pod that is about to be ready. An error refuses it; the caller
// then tells StopPod and RemovePod.
func (p *Plugins) RunPod(ctx context.Context, pod Pod) error {
	if p == nil {
		return nil
	}
	return p.relay("RunPodSandbox", func() error {
		p.setKnown(pod.ID, true)
		return p.library.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: pod.message()})
	})
}

// UpdatePod tells of what is asked for a pod as a whole, before it is done.
func (p *Plugins) UpdatePod(ctx context.Context, pod Pod, resources, overhead *runtimeapi.LinuxContainerResources) error {
	if p == nil {
		return nil
	}
	return p.relay("UpdatePodSandbox", func() error {
		_, err := p.library.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{
			Pod: pod.message(), LinuxResources: resourcesMessage(resources), OverheadLinuxResources: resourcesMessage(overhead),
		})
		return err
	})
}

// PodUpdated tells that an update of a pod was done.
func (p *Plugins) PodUpdated(ctx context.Context, pod Pod) {
	p.notify("PostUpdatePodSandbox", pod.ID, func() error {
		return p.library.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: pod.message()})
	})
}

// StopPod tells that a pod has ended; its network is still there.
func (p *Plugins) StopPod(ctx context.Context, pod Pod) {
	p.notify("StopPodSandbox", pod.ID, func() error {
		return p.library.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: pod.message()})
	})
}

// RemovePod tells that a pod goes. It is told once.
func (p *Plugins) RemovePod(ctx context.Context, pod Pod) {
	p.notify("RemovePodSandbox", pod.ID, func() error {
		p.setKnown(pod.ID, false)
		return p.library.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: pod.message()})
	})
}

// CreateContainer asks what to adjust of a container that is being created, and
// updates and evicts others if that is the answer. It changes c.Spec, but not for
// resources: these are returned, as a change, or nil for none.
func (p *Plugins) CreateContainer(ctx context.Context, pod Pod, c Container) (*runtimeapi.LinuxContainerResources, error) {
	if p == nil {
		return nil, nil
	}
	const event = "CreateContainer"
	ctx, evictions := withEvictions(ctx)
	var answer *adaptation.CreateContainerResponse
	container := c.message()
	err := p.relay(event, func() (err error) {
		p.setKnown(c.ID, true)
		answer, err = p.library.CreateContainer(ctx, &api.CreateContainerRequest{Pod: pod.message(), Container: container})
		return err
	})
	if err != nil {
		return nil, err
	}
	// The answer lacks the variables that were taken away; what the library keeps
	// up to date for the next plugin does not have them.
	c.Spec.Process.Env = container.Env
	p.evictLogged(ctx, evictions)
	if _, err := p.apply(ctx, answer.GetUpdate()); err != nil {
		return nil, fmt.Errorf("NRI plugins on %s: %w", event, err)
	}
	change, err := adjust(c.Spec, answer.GetAdjust(), p.calls.Inject)
	if err != nil {
		return nil, fmt.Errorf("NRI plugins on %s: %w", event, err)
	}
	return change, nil
}

// ContainerCreated tells of a created container, as it was adjusted.
func (p *Plugins) ContainerCreated(ctx context.Context, pod Pod, c Container) {
	p.notify("PostCreateContainer", c.ID, func() error {
		return p.library.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: pod.message(), Container: c.message()})
	})
}

// StartContainer tells of a container that is about to start. An error refuses it.
func (p *Plugins) StartContainer(ctx context.Context, pod Pod, c Container) error {
	if p == nil || !p.isKnown(c.ID) {
		return nil
	}
	return p.relay("StartContainer", func() error {
		return p.library.StartContainer(ctx, &api.StartContainerRequest{Pod: pod.message(), Container: c.message()})
	})
}

// ContainerStarted tells that a container runs.
func (p *Plugins) ContainerStarted(ctx context.Context, pod Pod, c Container) {
	p.notify("PostStartContainer", c.ID, func() error {
		return p.library.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: pod.message(), Container: c.message()})
	})
}

// UpdateContainer asks what to make of a change of a container's resources, and
// updates and evicts others if that is the answer. The result takes change's place.
func (p *Plugins) UpdateContainer(ctx context.Context, pod Pod, c Container, change *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error) {
	if p == nil {
		return change, nil
	}
	const event = "UpdateContainer"
	ctx, evictions := withEvictions(ctx)
	var answer *adaptation.UpdateContainerResponse
	err := p.relay(event, func() (err error) {
		answer, err = p.library.UpdateContainer(ctx, &api.UpdateContainerRequest{
			Pod: pod.message(), Container: c.message(), LinuxResources: resourcesMessage(change),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	p.evictLogged(ctx, evictions)
	own, others := splitUpdates(c.ID, answer.GetUpdate())
	if _, err := p.apply(ctx, others); err != nil {
		return nil, fmt.Errorf("NRI plugins on %s: %w", event, err)
	}
	if own == nil {
		return change, nil
	}
	changed, err := resources(own.GetLinux().GetResources())
	if err != nil {
		return nil, fmt.Errorf("NRI plugins on %s: %w", event, err)
	}
	return overlay(change, changed), nil
}

// ContainerUpdated tells that an update of a container was done.
func (p *Plugins) ContainerUpdated(ctx context.Context, pod Pod, c Container) {
	p.notify("PostUpdateContainer", c.ID, func() error {
		return p.library.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: pod.message(), Container: c.message()})
	})
}

// StopContainer tells that a container has ended, and updates others if that is the
// answer.
func (p *Plugins) StopContainer(ctx context.Context, pod Pod, c Container) {
	var answer *adaptation.StopContainerResponse
	p.notify("StopContainer", c.ID, func() (err error) {
		answer, err = p.library.StopContainer(ctx, &api.StopContainerRequest{Pod: pod.message(), Container: c.message()})
		return err
	})
	if _, err := p.apply(ctx, answer.GetUpdate()); err != nil {
		klog.ErrorS(err, "Failed to update containers for a plugin", "event", "StopContainer")
	}
}

// RemoveContainer tells that a container goes. It is told once.
func (p *Plugins) RemoveContainer(ctx context.Context, pod Pod, c Container) {
	p.notify("RemoveContainer", c.ID, func() error {
		p.setKnown(c.ID, false)
		return p.library.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: pod.message(), Container: c.message()})
	})
}

// notify relays an event that cannot be refused any more, of what plugins know.
func (p *Plugins) notify(event, id string, call func() error) {
	if p == nil || !p.isKnown(id) {
		return
	}
	if err := p.relay(event, call); err != nil {
		klog.ErrorS(err, "Failed to tell plugins", "event", event, "id", id)
	}
}

// synchronize tells one new plugin what there is. Registration is exclusive, so no
// event is told in between.
func (p *Plugins) synchronize(ctx context.Context, tell adaptation.SyncCB) error {
	pods, containers := p.calls.List()
	var knownPods []Pod
	for _, pod := range pods {
		if p.isKnown(pod.ID) {
			knownPods = append(knownPods, pod)
		}
	}
	var known []Container
	for _, c := range containers {
		if p.isKnown(c.ID) {
			known = append(known, c)
		}
	}
	updates, err := tell(ctx, podMessages(knownPods), containerMessages(known))
	if err != nil {
		return err
	}
	if _, err := p.apply(ctx, updates); err != nil {
		klog.ErrorS(err, "Failed to update containers for a plugin", "event", "Synchronize")
	}
	return nil
}

// updateFromPlugin is an update that nobody asked for. What failed is returned to
// the plugin.
func (p *Plugins) updateFromPlugin(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	failed, err := p.apply(ctx, updates)
	if err != nil {
		klog.ErrorS(err, "Failed to update containers for a plugin", "event", "UpdateContainers")
	}
	return failed, err
}

// apply updates containers. It goes on after one that fails; those whose failure
// the plugin does not care for are no error, but are among the failed.
func (p *Plugins) apply(ctx context.Context, updates []*api.ContainerUpdate) (failed []*api.ContainerUpdate, err error) {
	for _, u := range updates {
		change, uerr := resources(u.GetLinux().GetResources())
		if uerr == nil {
			uerr = p.calls.Update(ctx, u.GetContainerId(), change)
		}
		if uerr == nil {
			continue
		}
		failed = append(failed, u)
		if !u.GetIgnoreFailure() && err == nil {
			err = fmt.Errorf("update of container %s: %w", u.GetContainerId(), uerr)
		}
	}
	return failed, err
}

func splitUpdates(id string, updates []*api.ContainerUpdate) (own *api.ContainerUpdate, others []*api.ContainerUpdate) {
	for _, u := range updates {
		switch {
		case u == nil: // the library's way to say that no plugin changed the request
		case u.GetContainerId() == id:
			own = u
		default:
			others = append(others, u)
		}
	}
	return own, others
}

// injector applies CDI devices to a spec.
type injector = func(s *specs.Spec, names []string) error

package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// Snapshot is a pod's status and its containers', newest first.
type Snapshot struct {
	Pod        *runtimeapi.PodSandboxStatus
	Containers []*runtimeapi.ContainerStatus
}

// PodStatus reports one pod.
func (r *Registry) PodStatus(id string) (Snapshot, error) {
	p, err := r.FindPod(id)
	if err != nil {
		return Snapshot{}, err
	}
	return snapshot(p), nil
}

// ContainerStatus reports one container.
func (r *Registry) ContainerStatus(id string) (*runtimeapi.ContainerStatus, error) {
	c, err := r.FindContainer(id)
	if err != nil {
		return nil, err
	}
	if Hidden(c.Phase()) {
		return nil, fmt.Errorf("container %s is still being created: %w", c.ID(), errdefs.ErrNotFound)
	}
	return containerStatus(c), nil
}

// ListPods reports the pods that fit the filter, oldest first. One that was never ready
// and is being undone is none: nobody was told of it, nor is of its end.
func (r *Registry) ListPods(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var out []*runtimeapi.PodSandbox
	for _, p := range r.Pods() {
		st := p.Status()
		state := podState(st.Phase)
		if Hidden(st.Phase) || st.Abandoned || !strings.HasPrefix(p.ID(), f.GetId()) ||
			f.GetState() != nil && f.GetState().GetState() != state ||
			!Selects(f.GetLabelSelector(), p.Config().GetLabels()) {
			continue
		}
		out = append(out, &runtimeapi.PodSandbox{
			Id: p.ID(), Metadata: p.Config().GetMetadata(), State: state, CreatedAt: p.Meta.CreatedAt,
			Labels: p.Config().GetLabels(), Annotations: p.Config().GetAnnotations(), RuntimeHandler: p.Meta.Handler,
		})
	}
	return out
}

// ListContainers reports the containers that fit the filter, oldest first.
func (r *Registry) ListContainers(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var out []*runtimeapi.Container
	for _, c := range r.Containers() {
		st := c.Status()
		state := containerState(st.Phase)
		if Hidden(st.Phase) || !strings.HasPrefix(c.ID(), f.GetId()) ||
			!strings.HasPrefix(c.Pod.ID(), f.GetPodSandboxId()) ||
			f.GetState() != nil && f.GetState().GetState() != state ||
			!Selects(f.GetLabelSelector(), c.Config().GetLabels()) {
			continue
		}
		out = append(out, &runtimeapi.Container{
			Id: c.ID(), PodSandboxId: c.Pod.ID(), Metadata: c.Config().GetMetadata(), Image: imageSpec(c),
			ImageRef: c.Meta.ImageRef, ImageId: c.Meta.ImageID, State: state, CreatedAt: c.Meta.CreatedAt,
			Labels: c.Config().GetLabels(), Annotations: c.Config().GetAnnotations(),
		})
	}
	return out
}

// Hidden are the phases in which the caller does not know the id yet. Plugins do, while
// they are asked about a container; for others, the runtime included, it is none as long
// as they may refuse it (critest, NRI).
func Hidden(ph lifecycle.Phase) bool { return ph == lifecycle.Creating }

// Selects tells whether every label of the selector stands in labels.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func podState(ph lifecycle.Phase) runtimeapi.PodSandboxState {
	if ph == lifecycle.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func containerState(ph lifecycle.Phase) runtimeapi.ContainerState {
	switch ph {
	case lifecycle.Creating, lifecycle.Created, lifecycle.Starting:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case lifecycle.Running:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case lifecycle.Exited, lifecycle.Removing:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func snapshot(p *Pod) Snapshot {
	s := Snapshot{Pod: podStatus(p)}
	for _, c := range p.Containers() {
		if !Hidden(c.Phase()) {
			s.Containers = append(s.Containers, containerStatus(c))
		}
	}
	slices.SortFunc(s.Containers, newestFirst)
	return s
}

// newestFirst is the order in which the kubelet expects them: of several attempts of
// one name it takes the first for the present one.
func newestFirst(a, b *runtimeapi.ContainerStatus) int {
	return cmp.Or(cmp.Compare(b.GetCreatedAt(), a.GetCreatedAt()), strings.Compare(a.GetId(), b.GetId()))
}

func podStatus(p *Pod) *runtimeapi.PodSandboxStatus {
	st, cfg := p.Status(), p.Config()
	out := &runtimeapi.PodSandboxStatus{
		Id: p.ID(), Metadata: cfg.GetMetadata(), State: podState(st.Phase), CreatedAt: p.Meta.CreatedAt,
		Labels: maps.Clone(cfg.GetLabels()), Annotations: maps.Clone(cfg.GetAnnotations()), RuntimeHandler: p.Meta.Handler,
		Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: cfg.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
	}
	for i, ip := range st.IPs {
		if i == 0 {
			out.Network.Ip = ip
			continue
		}
		out.Network.AdditionalIps = append(out.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip})
	}
	return out
}

// imageSpec is the request's with the image's name in it, since the kubelet sends an
// id and shows what is answered. The name is the one of the creation: a tag may be
// another image's by now.
func imageSpec(c *Container) *runtimeapi.ImageSpec {
	if c.Meta.ImageName == "" {
		return c.Config().GetImage()
	}
	out := proto.CloneOf(c.Config().GetImage())
	out.Image = c.Meta.ImageName
	return out
}

// statusMounts are the request's, with the ids of the images among them. The kubelet
// shows these in the pod's status.
func statusMounts(c *Container) []*runtimeapi.Mount {
	mounts := c.Config().GetMounts()
	if len(c.Meta.VolumeImages) == 0 {
		return mounts
	}
	mounts = slices.Clone(mounts)
	for i, id := range c.Meta.VolumeImages {
		if i >= 0 && i < len(mounts) && mounts[i].GetImage() != nil {
			mounts[i] = proto.CloneOf(mounts[i])
			mounts[i].Image.ImageRef = id
		}
	}
	return mounts
}

func containerStatus(c *Container) *runtimeapi.ContainerStatus {
	st, cfg := c.Status(), c.Config()
	out := &runtimeapi.ContainerStatus{
		Id: c.ID(), Metadata: cfg.GetMetadata(), State: containerState(st.Phase),
		CreatedAt: c.Meta.CreatedAt, StartedAt: st.StartedAt, FinishedAt: st.FinishedAt,
		ExitCode: int32(st.ExitCode), Reason: st.Reason, Message: st.Message,
		Image: imageSpec(c), ImageRef: c.Meta.ImageRef, ImageId: c.Meta.ImageID,
		Labels: maps.Clone(cfg.GetLabels()), Annotations: maps.Clone(cfg.GetAnnotations()),
		Mounts: statusMounts(c), LogPath: c.Meta.LogPath,
		StopSignal: stopSignal(c.Meta.StopSignal),
	}
	if st.User != nil {
		out.User = st.User.Proto
	}
	if res := c.Resources(); res != nil {
		out.Resources = &runtimeapi.ContainerResources{Linux: res}
	}
	return out
}

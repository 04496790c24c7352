package nri

import (
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// Pod is what plugins are told of a pod.
type Pod struct {
	ID      string
	Handler string
	Config  *runtimeapi.PodSandboxConfig
	IPs     []string
	PID     int    // of the sandbox process
	NetNS   string // path of its network namespace; empty on the host's network
	Cgroup  string // of the pod, as the host sees it

	// Resources and Overhead are as they were updated last.
	Resources, Overhead *runtimeapi.LinuxContainerResources
}

// Container is what plugins are told of a container.
type Container struct {
	ID, PodID   string
	Config      *runtimeapi.ContainerConfig
	ImageID     string // digest of the image's config
	ImageRef    string // repository and digest where there is one
	State       State
	CreatedAt   int64 // Unix time, ns; as are the next two
	StartedAt   int64
	FinishedAt  int64
	ExitCode    int
	Reason      string
	Message     string
	PID         int         // of the sandbox process: the container's own are inside it
	Spec        *specs.Spec // resolved; nil when it is lost
	Resources   *runtimeapi.LinuxContainerResources
	OOMScoreAdj *int
}

// State is a container's state as plugins see it.
type State = api.ContainerState

// The states of a container.
const (
	Created = api.ContainerState_CONTAINER_CREATED
	Running = api.ContainerState_CONTAINER_RUNNING
	Stopped = api.ContainerState_CONTAINER_STOPPED
)

func (p Pod) message() *api.PodSandbox {
	md, linux := p.Config.GetMetadata(), p.Config.GetLinux()
	out := &api.PodSandbox{
		Id: p.ID, Name: md.GetName(), Uid: md.GetUid(), Namespace: md.GetNamespace(),
		Labels: copied(p.Config.GetLabels()), Annotations: copied(p.Config.GetAnnotations()),
		RuntimeHandler: p.Handler, Pid: uint32(p.PID), Ips: p.IPs,
		Linux: &api.LinuxPodSandbox{
			CgroupParent: linux.GetCgroupParent(), CgroupsPath: p.Cgroup,
			PodOverhead: resourcesMessage(p.Overhead), PodResources: resourcesMessage(p.Resources),
			Resources: resourcesMessage(p.Resources),
		},
	}
	if p.NetNS != "" {
		out.Linux.Namespaces = []*api.LinuxNamespace{{Type: "network", Path: p.NetNS}}
	}
	return out
}

func (c Container) message() *api.Container {
	out := &api.Container{
		Id: c.ID, PodSandboxId: c.PodID, Name: c.Config.GetMetadata().GetName(), State: c.State,
		Labels: copied(c.Config.GetLabels()), Annotations: copied(c.Config.GetAnnotations()),
		Pid: uint32(c.PID), CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt,
		ExitCode: int32(c.ExitCode), StatusReason: c.Reason, StatusMessage: c.Message,
		Linux: &api.LinuxContainer{Resources: resourcesMessage(c.Resources)},
		Image: imageMessage(c),
	}
	for _, d := range c.Config.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.GetName()})
	}
	if profile := c.Config.GetLinux().GetSecurityContext().GetSeccomp(); profile != nil {
		out.Linux.SeccompProfile = &api.SecurityProfile{
			ProfileType: api.SecurityProfile_ProfileType(profile.GetProfileType()), LocalhostRef: profile.GetLocalhostRef(),
		}
	}
	if c.Spec != nil {
		specMessage(out, c.Spec)
	}
	return out
}

// specMessage adds what the resolved spec says.
func specMessage(out *api.Container, s *specs.Spec) {
	for k, v := range s.Annotations {
		out.Annotations[k] = v
	}
	out.Mounts = api.FromOCIMounts(s.Mounts)
	if p := s.Process; p != nil {
		out.Args, out.Env = api.DupStringSlice(p.Args), api.DupStringSlice(p.Env)
		out.User = &api.User{Uid: p.User.UID, Gid: p.User.GID, AdditionalGids: p.User.AdditionalGids}
		if p.OOMScoreAdj != nil {
			out.Linux.OomScoreAdj = api.Int(*p.OOMScoreAdj)
		}
		for _, l := range p.Rlimits {
			out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
		}
	}
	if l := s.Linux; l != nil {
		out.Linux.Namespaces = api.FromOCILinuxNamespaces(l.Namespaces)
		out.Linux.Devices = api.FromOCILinuxDevices(l.Devices)
		if l.Seccomp != nil {
			out.Linux.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
		}
	}
}

func imageMessage(c Container) *api.Image {
	img := &api.Image{Name: c.Config.GetImage().GetUserSpecifiedImage(), ConfigDigest: c.ImageID}
	if img.Name == "" {
		img.Name = c.Config.GetImage().GetImage()
	}
	_, img.Digest, _ = strings.Cut(c.ImageRef, "@")
	return img
}

func resourcesMessage(r *runtimeapi.LinuxContainerResources) *api.LinuxResources {
	return api.FromOCILinuxResources(spec.Limits(r), nil)
}

// copied is never nil: the library writes into it.
func copied(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func podMessages(pods []Pod) []*api.PodSandbox {
	out := make([]*api.PodSandbox, 0, len(pods))
	for _, p := range pods {
		out = append(out, p.message())
	}
	return out
}

func containerMessages(containers []Container) []*api.Container {
	out := make([]*api.Container, 0, len(containers))
	for _, c := range containers {
		out = append(out, c.message())
	}
	return out
}

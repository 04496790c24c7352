package podsandbox

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// PodInfo is what a verbose status adds, for people. Its form may change.
type PodInfo struct {
	Phase     lifecycle.Phase `json:"phase"`
	PID       int             `json:"pid"`
	NetNS     string          `json:"netns,omitempty"`
	Cgroups   []string        `json:"cgroups,omitempty"`
	Limits    cgroup.Limits   `json:"limits"` // that the cgroup should have; -1 is none
	Message   string          `json:"message,omitempty"`
	Directory string          `json:"directory"`
}

// PodInfo reports what a verbose status adds.
func (m *Manager) PodInfo(id string) (PodInfo, error) {
	p, err := m.State.FindPod(id)
	if err != nil {
		return PodInfo{}, err
	}
	st := p.Status()
	info := PodInfo{Phase: st.Phase, PID: st.Process.PID, Limits: resources.Limits(p), Message: st.Message, Directory: m.paths.Pod(p.ID())}
	if !p.HostNetwork() {
		info.NetNS = p.NetNS
	}
	if g := p.Group(); g != nil {
		info.Cgroups = g.Paths()
	}
	return info, nil
}

// ContainerInfo is what a verbose status adds, for people. Its form may change.
type ContainerInfo struct {
	Phase     lifecycle.Phase `json:"phase"`
	SandboxID string          `json:"sandboxID"`
	PID       int             `json:"pid"` // of the sandbox process: the container's own are inside it
	Rootfs    string          `json:"rootfs"`
	Spec      *specs.Spec     `json:"runtimeSpec"`
}

// ContainerInfo reports what a verbose status adds.
func (m *Manager) ContainerInfo(id string) (ContainerInfo, error) {
	c, err := m.State.FindContainer(id)
	if err != nil {
		return ContainerInfo{}, err
	}
	oci, err := c.Spec()
	if err != nil {
		return ContainerInfo{}, err
	}
	if oci.Linux != nil {
		oci.Linux.Resources = spec.Limits(c.Resources()) // as they are by now
	}
	return ContainerInfo{
		Phase: c.Phase(), SandboxID: c.Pod.ID(), PID: c.Pod.Status().Process.PID,
		Rootfs: m.paths.Rootfs(c.Pod.ID(), c.ID()), Spec: oci,
	}, nil
}

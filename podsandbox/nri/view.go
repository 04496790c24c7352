package nri

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// PodOf is what plugins are told of a pod.
func PodOf(p *state.Pod) Pod {
	st, linux := p.Status(), p.Config().GetLinux()
	out := Pod{
		ID: p.ID(), Handler: p.Meta.Handler, Config: p.Config(), IPs: st.IPs, PID: st.Process.PID,
		Resources: linux.GetResources(), Overhead: linux.GetOverhead(),
	}
	if st.Resources != nil {
		out.Resources = st.Resources.Proto
	}
	if st.Overhead != nil {
		out.Overhead = st.Overhead.Proto
	}
	if p.NetNS != "" {
		if _, err := os.Stat(p.NetNS); err == nil { // a stopped pod has given it back
			out.NetNS = p.NetNS
		}
	}
	if g := p.Group(); g != nil {
		if paths := g.Paths(); len(paths) > 0 {
			out.Cgroup = paths[0]
		}
	}
	return out
}

// ContainerOf is what plugins are told of a container; s is its spec, or nil to read it.
func ContainerOf(c *state.Container, s *specs.Spec) Container {
	st := c.Status()
	if s == nil {
		var err error
		if s, err = c.Spec(); err != nil {
			klog.V(2).InfoS("Failed to read the spec of a container for plugins", "container", c.ID(), "err", err)
		}
	}
	out := Container{
		ID: c.ID(), PodID: c.Pod.ID(), Config: c.Config(), ImageID: c.Meta.ImageID, ImageRef: c.Meta.ImageRef,
		State: Created, CreatedAt: c.Meta.CreatedAt, StartedAt: st.StartedAt, FinishedAt: st.FinishedAt,
		ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message,
		PID: c.Pod.Status().Process.PID, Spec: s, Resources: c.ResourcesIn(st),
	}
	switch st.Phase {
	case lifecycle.Running:
		out.State = Running
	case lifecycle.Exited, lifecycle.Removing:
		out.State = Stopped
	}
	return out
}

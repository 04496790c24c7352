package spec

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RefusePrivileged refuses a pod that is to hold privileged containers. It is for
// a node whose operator has not said that they are to be privileged inside their
// sandbox: most of them want the host, and would fail there in ways that are hard
// to understand.
func RefusePrivileged(c *runtimeapi.PodSandboxConfig) error {
	if c.GetLinux().GetSecurityContext().GetPrivileged() {
		return fmt.Errorf(`pod is to hold privileged containers, which have the host; security.privileged_pods = "sandbox" lets them be privileged inside the sandbox alone: %w`, ErrNeedsNative)
	}
	return nil
}

func containerPrivileged(r containerRequest) error {
	if r.security().GetPrivileged() && !r.pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalidf("container is privileged and its pod is not; set privileged for the pod, too")
	}
	return nil
}

// makePrivileged lifts what a container is held by inside its sandbox: all that
// the Sentry knows of capabilities, no filter of system calls, no path masked or
// read-only, a writable /sys. What the request says of these does not count, as
// everywhere in Kubernetes. Nothing of the host is in it: no device, no namespace.
func makePrivileged(s *specs.Spec) error {
	all, err := capabilities(&runtimeapi.Capability{AddCapabilities: []string{"ALL"}}, s.Process.User.UID)
	if err != nil {
		return err
	}
	s.Process.Capabilities = all
	s.Linux.Seccomp = nil
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	for i := range s.Mounts {
		if s.Mounts[i].Type == "sysfs" {
			s.Mounts[i].Options = []string{"nosuid", "noexec", "nodev"}
		}
	}
	return nil
}

package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func containerPrivileged(r containerRequest) error {
	if r.security().GetPrivileged() && !r.pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalidf("container is privileged and its pod is not; set privileged for the pod, too")
	}
	return nil
}

// makePrivileged lifts what a container is held by: all capabilities, no filter of
// system calls, no path masked or read-only, a writable /sys. What the request says of
// these does not count, as everywhere in Kubernetes. Nothing of the host is in it: no
// device, no namespace.
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

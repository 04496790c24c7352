package gvisor

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

const (
	// podShmPath is the pod's shared memory as the gofer returns it: sources are made
	// absolute.
	podShmPath = "/" + engine.PodSharedMemory
	// defaultShmSize is Linux's and Docker's customary 64 MiB.
	defaultShmSize = "65536k"
)

// rootSpec is the spec of the root container: the pause program on its own
// image, and what holds for the whole pod.
func rootSpec(hostname string) *specs.Spec {
	all := capability.All
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: hostname,
		Root:     &specs.Root{Path: "/", Readonly: true},
		Process: &specs.Process{
			Args: []string{"/pause"},
			Cwd:  "/",
			// Over the sandbox alone, for the program that sets sysctls.
			Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{},
		Annotations: map[string]string{
			"io.kubernetes.cri.container-type": "sandbox",
			// Every mount with this source is one tmpfs, made by the first.
			"dev.gvisor.spec.mount.shm.source":  podShmPath,
			"dev.gvisor.spec.mount.shm.type":    "tmpfs",
			"dev.gvisor.spec.mount.shm.share":   "pod",
			"dev.gvisor.spec.mount.shm.options": "mode=1777,size=" + defaultShmSize,
		},
	}
}

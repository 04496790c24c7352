package spec

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Input is all that a container's spec is made of. Pod and Container have passed
// ValidatePod and ValidateContainer. Nothing in it is modified or kept.
type Input struct {
	ID, SandboxID string

	Pod       *runtimeapi.PodSandboxConfig
	Container *runtimeapi.ContainerConfig
	Image     ocispec.ImageConfig
	User      ResolvedUser

	// RootPath is the mounted root file system on the host.
	RootPath string

	// Mounts are the request's mounts as PrepareMounts returned them; nil means
	// Container.Mounts as sent.
	Mounts []*runtimeapi.Mount

	// Volumes maps destinations that ImageVolumes named to directories on the host, for
	// those that are mounts.
	Volumes map[string]string

	// TargetPIDNamespace is the path of the PID namespace that the container named by
	// target_id is in; for the mode TARGET alone.
	TargetPIDNamespace string

	// Hostname is the name inside the pod, see the function Hostname.
	Hostname string

	// Files maps destinations to files on the host to bind over the container's. A
	// mount of the request with the same destination wins.
	Files map[string]string

	// Devices are the nodes that Devices made of the request's.
	Devices []specs.LinuxDevice

	// SeccompRoot is the directory of localhost profiles that are given by a
	// relative path. The kubelet sends absolute ones.
	SeccompRoot string
}

func (in Input) security() *runtimeapi.LinuxContainerSecurityContext {
	return in.Container.GetLinux().GetSecurityContext()
}

// Container makes the runtime spec of a container. It reads a seccomp profile if
// the request names one; nothing else outside of in. The caller mounts the root
// file system, makes the volumes, adds a mount of /sys/fs/cgroup where the engine
// has one, and turns Linux.MaskedPaths and ReadonlyPaths into mounts. A working
// directory that does not exist is made when the container starts.
//
// Errors: ErrInvalidArgument when there is no command, or for a seccomp profile
// that is absent or broken.
func Container(in Input) (*specs.Spec, error) {
	process, err := process(in)
	if err != nil {
		return nil, err
	}
	sc := in.security()
	filter, err := containerSeccomp(sc, in.SeccompRoot, process.Capabilities)
	if err != nil {
		return nil, err
	}
	out := &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: in.RootPath, Readonly: sc.GetReadonlyRootfs()},
		Hostname:    in.Hostname,
		Mounts:      mounts(in),
		Annotations: annotations(in),
		Linux: &specs.Linux{
			Resources:     Limits(in.Container.GetLinux().GetResources()),
			Namespaces:    namespaces(in),
			Devices:       in.Devices,
			Seccomp:       filter,
			MaskedPaths:   orDefault(sc.GetMaskedPaths(), defaultMaskedPaths),
			ReadonlyPaths: orDefault(sc.GetReadonlyPaths(), defaultReadonlyPaths),
		},
	}
	if ids := IDs(in.Pod); !ids.IsZero() {
		out.Linux.Namespaces = append(out.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		out.Linux.UIDMappings, out.Linux.GIDMappings = ids.UIDs, ids.GIDs
	}
	if sc.GetPrivileged() {
		return out, makePrivileged(out)
	}
	return out, nil
}

// namespaces names the PID namespace alone: network, IPC and UTS belong to the
// sandbox, and every container has its own mount namespace.
func namespaces(in Input) []specs.LinuxNamespace {
	// One of its own has a name from the beginning, so that others can join it later.
	pid := specs.LinuxNamespace{Type: specs.PIDNamespace, Path: engine.PIDNamespaceOf(in.ID)}
	switch in.security().GetNamespaceOptions().GetPid() {
	case runtimeapi.NamespaceMode_POD:
		pid.Path = engine.PodPIDNamespace
	case runtimeapi.NamespaceMode_TARGET:
		pid.Path = in.TargetPIDNamespace
	}
	return []specs.LinuxNamespace{pid}
}

// PIDNamespace is the path of the PID namespace in a spec that Container made; empty
// where there is none, or one without a path.
func PIDNamespace(s *specs.Spec) string {
	for _, ns := range linux(s).Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path
		}
	}
	return ""
}

// The paths that Kubernetes masks unless a pod says otherwise. An empty list in a
// request cannot be told from an absent one, so it means these, too.
var (
	defaultMaskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	defaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// orDefault returns a copy, so that specs do not share memory with each other or
// with the request.
func orDefault(paths, fallback []string) []string {
	if len(paths) == 0 {
		paths = fallback
	}
	return append([]string(nil), paths...)
}

// HostNetwork reports whether the pod uses the host's network.
func HostNetwork(c *runtimeapi.PodSandboxConfig) bool {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

// Hostname is the name a pod sees as its own: the requested one, else the host's
// (host) on the host's network, else the beginning of the sandbox id, since the
// interface lets the name be empty only on the host's network but its tools do not
// keep to that.
func Hostname(c *runtimeapi.PodSandboxConfig, sandboxID, host string) string {
	const short = 12
	switch {
	case c.GetHostname() != "":
		return c.GetHostname()
	case HostNetwork(c):
		return host
	default:
		return sandboxID[:min(short, len(sandboxID))]
	}
}

package gvisor

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// settings are gVisor's configuration of a sandbox, as far as it is another than gVisor's
// own. The Sentry and the gofers get them as flags, and the Sentry gets them again with
// each container, as a value; what one of them is told and the other is not would be
// served one way and used another.
type settings struct {
	platform      string
	hostNetwork   bool // the one that weakens the isolation
	seccomp       bool // filters of containers are applied
	suid          bool // why: docs/architecture.md
	sandboxCgroup cgroupVersion
	directFS      bool
}

// cgroupVersion is that of the hierarchy inside a sandbox: gVisor's InSandboxCgroup.
type cgroupVersion int

const cgroupV2 cgroupVersion = 1

// settingsOf are those of a sandbox.
func settingsOf(hostNetwork bool) settings {
	return settings{
		platform: "systrap", hostNetwork: hostNetwork, seccomp: true, suid: true, sandboxCgroup: cgroupV2, directFS: true,
	}
}

// flags are the settings on the command line. What is gVisor's default is left out.
func (s settings) flags() []string {
	// gVisor's own cgroups are not used: the daemon makes those of the pod.
	flags := []string{"--ignore-cgroups=true", "--platform=" + s.platform}
	if s.seccomp {
		flags = append(flags, "--oci-seccomp")
	}
	if s.suid {
		flags = append(flags, "--allow-suid")
	}
	if s.sandboxCgroup == cgroupV2 {
		flags = append(flags, "--in-sandbox-cgroup=v2")
	}
	if s.hostNetwork {
		flags = append(flags, "--network=host")
	}
	return flags
}

// ofContainer are the settings as they go with a container, and what is that one's
// alone.
func (s settings) ofContainer(p *preparedSpec) containerConf {
	return containerConf{
		Platform: s.platform, DirectFS: s.directFS, OCISeccomp: s.seccomp, InSandboxCgroup: int(s.sandboxCgroup),
		FileAccessMounts: 1, DCache: -1,
		EnableRaw: hasNetRaw(p.spec.Process), OverrideProcs: strings.Join(p.emptyProcFiles, ","),
	}
}

// hasNetRaw tells whether raw sockets are among a process's capabilities. gVisor
// takes that one away where they are not turned on.
func hasNetRaw(p *specs.Process) bool { return hasCapability(p, "CAP_NET_RAW") }

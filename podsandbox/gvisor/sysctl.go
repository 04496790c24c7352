package gvisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd/errdefs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// setSysctls sets the pod's sysctls. The Sentry takes none from a spec, so a
// small program writes them, from within the root container, where it may. The
// program is given by descriptor and is in no file system.
func (s *Sandbox) setSysctls(ctx context.Context) error {
	if len(s.cfg.Sysctls) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(s.cfg.Sysctls))
	argv := []string{"set-sysctls"}
	for _, name := range names {
		argv = append(argv, sysctlPath(name), s.cfg.Sysctls[name])
	}
	args, err := execArgsOf(s.cfg.ID, engine.Exec{Process: &specs.Process{
		Args: argv, Cwd: "/", NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{
			Effective: sysctlCapabilities, Permitted: sysctlCapabilities, Bounding: sysctlCapabilities,
		},
	}})
	if err != nil {
		return err
	}
	var pid int32
	null := s.engine.null
	// The file behind the three of stdio is the program.
	err = s.control.call(ctx, methodExec, args, &pid, null, null, null, s.engine.setFiles)
	if err != nil {
		return fmt.Errorf("set sysctls: %w", s.explain(err))
	}
	status, err := s.wait(ctx, methodWaitPID, waitPIDArgs{PID: pid, CID: s.cfg.ID})
	switch {
	case err != nil:
		return fmt.Errorf("set sysctls: %w", err)
	case status.Code == 0:
		return nil
	case status.Signal == 0 && status.Code <= len(names):
		name := names[status.Code-1]
		return fmt.Errorf("sysctl %s=%q cannot be set in a gVisor sandbox: %w", name, s.cfg.Sysctls[name], errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("set sysctls: program ended with status %d: %w", status.Code, errdefs.ErrInternal)
}

// sysctlCapabilities hold within the sandbox only.
var sysctlCapabilities = []string{"CAP_DAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_SYS_PTRACE"}

// sysctlPath is the file of a sysctl. A name is separated by dots, or by slashes
// where a part holds a dot itself.
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return "/proc/sys/" + name
}

package gvisor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
)

// setSysctls sets sysctls. The Sentry takes none from a spec, so a
// small program writes them, from within the root container, where it may. The
// program is given by descriptor and is in no file system.
func (r *rootPrograms) setSysctls(ctx context.Context, sysctls map[string]string) error {
	if name, why, _ := sysctl.Check(sysctls); why != "" {
		return fmt.Errorf("sysctl %s=%q cannot be set in a gVisor sandbox, where %s: %w", name, sysctls[name], why, errdefs.ErrInvalidArgument)
	}
	var settings []sysctl.Setting
	argv := []string{"set-sysctls"}
	for _, setting := range sysctl.Settings(sysctls) {
		if r.isSet(ctx, setting) {
			continue // maybe one that cannot be written
		}
		settings = append(settings, setting)
		argv = append(argv, procSys+setting.Path, setting.Value)
	}
	if len(settings) == 0 {
		return nil
	}
	status, err := r.run(ctx, rootProgram{file: r.files.setFiles, args: argv, capabilities: sysctlCapabilities})
	switch {
	case err != nil:
		return fmt.Errorf("set sysctls: %w", err)
	case status.Code == 0:
		return nil
	case status.Signal == 0 && status.Code <= len(settings):
		name := settings[status.Code-1].Name
		return fmt.Errorf("sysctl %s=%q cannot be set in a gVisor sandbox: %w", name, sysctls[name], errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("set sysctls: program ended with status %d: %w", status.Code, errdefs.ErrInternal)
}

// sysctlCapabilities hold within the sandbox only.
var sysctlCapabilities = []string{"CAP_DAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_SYS_PTRACE"}

const procSys = "/proc/sys/"

// isSet tells whether the sandbox has a value already. The Sentry has files that only
// show what it does.
func (r *rootPrograms) isSet(ctx context.Context, want sysctl.Setting) bool {
	has, err := r.control.readFile(ctx, procSys+want.Path)
	return err == nil && slices.Equal(strings.Fields(string(has)), strings.Fields(want.Value))
}

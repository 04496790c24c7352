package gvisor

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// makeCgroup makes a container's cgroup with its limits. One that has neither limit
// nor request needs none made, which takes a millisecond of a processor.
func (r *rootPrograms) makeCgroup(ctx context.Context, c engine.Container) error {
	if c.Spec.Linux == nil || c.Spec.Linux.Resources == nil {
		return nil
	}
	res := c.Spec.Linux.Resources
	limits := limitsOf(res)
	others := len(limits) - len(unlimited)
	if res.CPU != nil && res.CPU.Shares != nil && *res.CPU.Shares <= leastShares {
		others--
	}
	if others == 0 && slices.Equal(limits[:len(unlimited)], unlimited) {
		return nil
	}
	return r.setCgroup(ctx, c.ID, append([]limit{{"", ""}}, limits...))
}

// setCgroup writes to the files of a container's cgroup; no file is the cgroup
// itself, and makes it.
func (r *rootPrograms) setCgroup(ctx context.Context, id string, limits []limit) error {
	argv := []string{"set-cgroup"}
	for _, l := range limits {
		argv = append(argv, "./"+id+"/"+l.file, l.value)
	}
	status, err := r.run(ctx, rootProgram{file: r.files.setCgroup, args: argv, capabilities: cgroupCapabilities})
	switch {
	case err != nil:
		return fmt.Errorf("set limits in the sandbox: %w", err)
	case status == (engine.ExitStatus{}):
		return nil
	case status.Signal != 0 || status.Code == guest.CgroupsUnreachable || status.Code > len(limits):
		return fmt.Errorf("set limits in the sandbox: program ended with status %d: %w", status.Code, errdefs.ErrInternal)
	case status.Code == 1: // of which no value is refused
		return fmt.Errorf("it has no cgroup in the sandbox: %w", errdefs.ErrNotFound)
	}
	refused := limits[status.Code-1]
	return fmt.Errorf("%s cannot be %q in a gVisor sandbox: %w", refused.file, refused.value, errdefs.ErrInvalidArgument)
}

// cgroupCapabilities hold within the sandbox only.
var cgroupCapabilities = []string{"CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"}

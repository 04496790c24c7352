package gvisor

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// maxMountOperations is how many the program takes: it tells by its exit code which of
// them has failed.
const maxMountOperations = 250

// changeMounts runs the program that changes mounts, in the root container. It returns
// the number of the operation that failed, counted from 1.
func (r *rootPrograms) changeMounts(ctx context.Context, ops []string) (failed int, err error) {
	if len(ops)/2 > maxMountOperations {
		return 0, fmt.Errorf("%d changes of mounts at once, at most %d: %w", len(ops)/2, maxMountOperations, errdefs.ErrInvalidArgument)
	}
	status, err := r.run(ctx, rootProgram{file: r.files.mounts, args: append([]string{"mounts"}, ops...), capabilities: mountCapabilities})
	if err != nil {
		return 0, err
	}
	if status.Code != 0 {
		n := min(status.Code, len(ops)/2)
		return n, fmt.Errorf("operation %s %s: failed in the sandbox: %w", ops[2*n-2], ops[2*n-1], errdefs.ErrInternal)
	}
	return 0, nil
}

// mountCapabilities hold within the sandbox only.
var mountCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
}

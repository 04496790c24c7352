package gvisor

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// setHostname gives a sandbox the pod's host name, which all its containers have from
// the root container. It is told at the boot otherwise.
func (r *rootPrograms) setHostname(ctx context.Context, name string) error {
	status, err := r.run(ctx, rootProgram{
		file: r.files.setHostname, args: []string{"set-hostname", name}, capabilities: []string{"CAP_SYS_ADMIN"},
	})
	switch {
	case err != nil:
		return fmt.Errorf("set host name: %w", err)
	case status.Signal != 0:
		return fmt.Errorf("set host name: program ended with status %d: %w", status.Code, errdefs.ErrInternal)
	case status.Code != 0:
		return fmt.Errorf("set host name %q: %w: %w", name, unix.Errno(status.Code), errdefs.ErrInvalidArgument)
	}
	return nil
}

package spec

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// ErrNeedsNative is wrapped by every refusal of something that an application
// kernel cannot give and an OCI runtime on the host's kernel can. It is of the
// class errdefs.ErrFailedPrecondition.
var ErrNeedsNative = fmt.Errorf(`not possible in a gVisor sandbox, use runtime handler "native": %w`, errdefs.ErrFailedPrecondition)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

func needsNativef(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrNeedsNative)
}

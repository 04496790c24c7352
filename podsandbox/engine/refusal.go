package engine

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// ErrNeedsHost is wrapped by every refusal of what an engine on the host's kernel could
// give. It is of the class errdefs.ErrFailedPrecondition, and says nothing more: the
// engine says what it is that cannot be given, and why not.
var ErrNeedsHost error = needsHost{}

type needsHost struct{}

func (needsHost) Error() string { return errdefs.ErrFailedPrecondition.Error() }
func (needsHost) Unwrap() error { return errdefs.ErrFailedPrecondition }

// UseHandler adds to a refusal the name of a runtime handler that accepts what was
// refused.
func UseHandler(refusal error, handler string) error { return &advised{refusal, handler} }

type advised struct {
	refusal error
	handler string
}

// Error keeps the class at the end, as in all errors.
func (a *advised) Error() string {
	class := ": " + errdefs.ErrFailedPrecondition.Error()
	text, ok := strings.CutSuffix(a.refusal.Error(), class)
	if !ok {
		class = ""
	}
	return fmt.Sprintf("%s, use runtime handler %q%s", text, a.handler, class)
}

func (a *advised) Unwrap() error { return a.refusal }

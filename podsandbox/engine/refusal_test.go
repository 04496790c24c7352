package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

func TestErrNeedsHost(t *testing.T) {
	err := fmt.Errorf("huge pages of 2MB: not possible in a sandbox: %w", ErrNeedsHost)
	if !errors.Is(err, ErrNeedsHost) || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("class of %v", err)
	}
	if want := "huge pages of 2MB: not possible in a sandbox: failed precondition"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestUseHandler(t *testing.T) {
	for text, want := range map[string]string{
		"huge pages: not possible: failed precondition": `huge pages: not possible, use runtime handler "native": failed precondition`,
		"huge pages": `huge pages, use runtime handler "native"`,
	} {
		err := UseHandler(fmt.Errorf("%w%.0w", errors.New(text), ErrNeedsHost), "native")
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		if !errors.Is(err, ErrNeedsHost) {
			t.Errorf("class of %v", err)
		}
	}
}

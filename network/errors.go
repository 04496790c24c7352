package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
)

// errClosed ends what runs when the network is closed.
var errClosed = errorOf(errdefs.ErrUnavailable, "network is closed")

// classified is an error that is also of a class; its text is the error's own.
type classified struct{ err, class error }

func (c classified) Error() string   { return c.err.Error() }
func (c classified) Unwrap() []error { return []error{c.err, c.class} }

// errorOf makes an error of a class, without the class's name in its text: for
// sentences that people read in the status of a node.
func errorOf(class error, format string, args ...any) error {
	return classified{fmt.Errorf(format, args...), class}
}

// classify gives an error a class unless it has one: a plugin's error by its CNI
// code, any other the fallback.
func classify(err, fallback error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errdefs.Resolve(err) != errdefs.ErrUnknown:
		return err
	}
	var said *types.Error
	if errors.As(err, &said) {
		switch said.Code {
		case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
			return classified{err, errdefs.ErrUnavailable}
		}
	}
	return classified{err, fallback}
}

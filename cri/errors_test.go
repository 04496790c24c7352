package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestToStatusGivesErrorsTheirCode(t *testing.T) {
	for want, errs := range map[codes.Code][]error{
		codes.InvalidArgument:    {errdefs.ErrInvalidArgument},
		codes.NotFound:           {errdefs.ErrNotFound},
		codes.AlreadyExists:      {errdefs.ErrAlreadyExists},
		codes.FailedPrecondition: {errdefs.ErrFailedPrecondition},
		codes.Unauthenticated:    {errdefs.ErrUnauthenticated},
		codes.PermissionDenied:   {errdefs.ErrPermissionDenied},
		codes.Unimplemented:      {errdefs.ErrNotImplemented, status.Error(codes.Unimplemented, "x")},
		codes.ResourceExhausted:  {errdefs.ErrResourceExhausted, &os.PathError{Op: "write", Path: "/x", Err: unix.ENOSPC}},
		codes.DeadlineExceeded:   {context.DeadlineExceeded},
		codes.Canceled:           {context.Canceled},
		codes.Unavailable:        {errdefs.ErrUnavailable},
		codes.Internal:           {errors.New("what nobody thought of")},
	} {
		for _, err := range errs {
			for _, e := range []error{err, fmt.Errorf("run pod: %w", err), errors.Join(fmt.Errorf("a: %w", err))} {
				if got := status.Code(ToStatus(e)); got != want {
					t.Errorf("%v: %v, want %v", e, got, want)
				}
			}
		}
	}
	if ToStatus(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestToStatusNeverSaysUnknown(t *testing.T) {
	for _, err := range []error{errors.New("x"), errdefs.ErrUnknown, status.Error(codes.Unknown, "x"), status.Error(99, "x"), okError{}} {
		for _, e := range []error{err, fmt.Errorf("run pod: %w", err), errors.Join(err, errdefs.ErrUnknown)} {
			if c := status.Code(ToStatus(e)); c != codes.Internal {
				t.Errorf("%v answers %v", e, c)
			}
		}
	}
}

// okError says of itself that it is none.
type okError struct{}

func (okError) Error() string              { return "x" }
func (okError) GRPCStatus() *status.Status { return status.New(codes.OK, "") }

package cri

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorCodes is the one table from the classes of errors inside to the codes at
// the edge. The first row that fits wins. What fits none is Internal: a defect
// of ours, never Unknown.
var errorCodes = []struct {
	is   func(error) bool
	code codes.Code
}{
	{errdefs.IsInvalidArgument, codes.InvalidArgument},
	{errdefs.IsNotFound, codes.NotFound},
	{errdefs.IsAlreadyExists, codes.AlreadyExists},
	{errdefs.IsFailedPrecondition, codes.FailedPrecondition},
	{errdefs.IsUnauthorized, codes.Unauthenticated},
	{errdefs.IsPermissionDenied, codes.PermissionDenied},
	{errdefs.IsNotImplemented, codes.Unimplemented},
	{errdefs.IsResourceExhausted, codes.ResourceExhausted},
	{isSystem(unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM), codes.ResourceExhausted},
	{isSystem(unix.EROFS), codes.FailedPrecondition},
	{errdefs.IsDeadlineExceeded, codes.DeadlineExceeded},
	{is(context.DeadlineExceeded), codes.DeadlineExceeded},
	{errdefs.IsCanceled, codes.Canceled},
	{is(context.Canceled), codes.Canceled},
	{errdefs.IsAborted, codes.Aborted},
	{errdefs.IsOutOfRange, codes.OutOfRange},
	{errdefs.IsDataLoss, codes.DataLoss},
	{errdefs.IsUnavailable, codes.Unavailable},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isSystem(errnos ...unix.Errno) func(error) bool {
	return func(err error) bool {
		for _, e := range errnos {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
}

// ToStatus gives an error its code. An error that is a gRPC status already keeps it,
// if it is one that says something: others' may be Unknown, or a number of their own.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok && meansSomething(st.Code()) {
		return err
	}
	for _, row := range errorCodes {
		if row.is(err) {
			return status.Error(row.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// meansSomething is true for the codes of errors that gRPC defines, but for Unknown.
func meansSomething(c codes.Code) bool {
	return c > codes.OK && c <= codes.Unauthenticated && c != codes.Unknown
}

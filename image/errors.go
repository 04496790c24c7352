package image

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// classify finds the class of a pull's error: exactly one of errdefs', or of
// the context package. The libraries' errors often carry another one deep
// inside, so the caller must not wrap both.
func classify(err error) error {
	var (
		status  remoteerrors.ErrUnexpectedStatus
		badCert *tls.CertificateVerificationError
		bad     badLayer
		wrong   wrongBytes
		broken  brokenOff
		network net.Error
		garbage *json.SyntaxError
	)
	switch {
	case outOfDisk(err):
		return errdefs.ErrResourceExhausted
	case errors.Is(err, errStalled), errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &bad):
		return errdefs.ErrInvalidArgument
	case errors.As(err, &wrong):
		return errdefs.ErrDataLoss
	case errors.Is(err, syscall.EROFS):
		return errdefs.ErrFailedPrecondition
	case errors.As(err, &status):
		return statusClass(status.StatusCode)
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsNotImplemented(err):
		// Not implemented is a scheme of authorization that is unknown.
		return errdefs.ErrUnauthenticated
	case errors.As(err, &badCert):
		return errdefs.ErrFailedPrecondition
	case errdefs.IsNotFound(err):
		return errdefs.ErrNotFound
	case errdefs.IsInvalidArgument(err), errors.Is(err, digest.ErrDigestInvalidFormat),
		errors.Is(err, digest.ErrDigestUnsupported), errors.Is(err, digest.ErrDigestInvalidLength):
		return errdefs.ErrInvalidArgument
	case errdefs.IsResourceExhausted(err):
		return errdefs.ErrResourceExhausted
	case errors.Is(err, auth.ErrNoToken):
		return errdefs.ErrUnauthenticated
	case errors.As(err, &network), errors.As(err, &broken), errors.As(err, &garbage), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errdefs.IsUnavailable(err):
		return errdefs.ErrUnavailable
	case errdefs.IsFailedPrecondition(err):
		return errdefs.ErrFailedPrecondition
	}
	return errdefs.ErrInternal
}

func statusClass(code int) error {
	switch code {
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	}
	return errdefs.ErrUnavailable
}

// retryable tells whether the same pull may succeed later, so that what has
// been downloaded is worth keeping.
func retryable(class error) bool {
	switch class {
	case context.Canceled, context.DeadlineExceeded, errdefs.ErrUnavailable:
		return true
	}
	return false
}

// advice is what the user can do about a class of errors.
func advice(class error) string {
	switch class {
	case errdefs.ErrResourceExhausted:
		return "; free disk space for images"
	case errdefs.ErrUnauthenticated:
		return "; check the name and the credentials"
	case errdefs.ErrPermissionDenied:
		return "; the credentials do not allow it"
	}
	return ""
}

// diskError gives errors of a full disk, and of one that became read-only, their
// class.
func diskError(err error) error {
	switch {
	case outOfDisk(err):
		return fmt.Errorf("%v: %w", err, errdefs.ErrResourceExhausted)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%v: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

func outOfDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// classify gives an error of a control call its class. The sandbox answers with
// sentences, not with codes; the parts looked for here are held to gVisor by the
// tests against real sandboxes.
func classify(err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errTooManyFiles) {
		return err
	}
	var garbled *garbledError
	if errors.As(err, &garbled) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInternal)
	}
	var remote *remoteError
	if !errors.As(err, &remote) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(remote.message, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("already exists"):
		return fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	case has("not started", "has stopped", "not in created state", "not in started state", "no TTY attached"):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	case has("no such file or directory", "permission denied", "not a directory", "exec format error", "is a directory", "not executable", "failed to load"):
		// The program, working directory or mount point that the caller named.
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case remote.message == "out of memory":
		// The end of a pid namespace's first process, while its container is not yet
		// known to have stopped: Linux, too, makes no process there then (ENOMEM).
		return fmt.Errorf("its first process has ended: %w: %w", err, errdefs.ErrFailedPrecondition)
	case isContainerMissing(remote.message):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInternal)
}

func isContainerMissing(message string) bool {
	return strings.HasPrefix(message, "container ") && strings.HasSuffix(message, "not found") ||
		strings.Contains(message, "deleted container") || strings.Contains(message, "no such process") ||
		strings.Contains(message, "container ") && strings.Contains(message, " not found")
}

// isAnswer reports an error that the sandbox answered with, in one of these words.
func isAnswer(err error, words ...string) bool {
	var remote *remoteError
	return errors.As(err, &remote) &&
		slices.ContainsFunc(words, func(w string) bool { return strings.Contains(remote.message, w) })
}

// isMissing reports the answer that a file is not there.
func isMissing(err error) bool {
	return isAnswer(err, "no such file or directory", "not a directory")
}

// isBrokenConnection reports an error that is neither an answer of the sandbox,
// however garbled, nor the end of the context.
func isBrokenConnection(err error) bool {
	var remote *remoteError
	var garbled *garbledError
	return err != nil && !errors.As(err, &remote) && !errors.As(err, &garbled) && !errors.Is(err, errTooManyFiles) &&
		!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}

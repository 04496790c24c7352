package gvisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// pidNamespaces lets containers into the pid namespaces of others. It owns what
// containers know of that (container.joining), under the turn of the owner of the
// namespace.
type pidNamespaces struct {
	control    *controlPlane
	containers *containers
}

// join makes sure that a container which is to be in another's pid
// namespace gets into it, until unlock is called with whether it was started. The
// Sentry looks for a container with the same path, and takes what it finds: without one it makes a new namespace
// and says nothing, and one whose start has failed half way ends the Sentry. So the
// owner has to run, is not destroyed meanwhile, and containers join it one after the
// other; who failed to is destroyed before the next one tries.
//
// +checklocksignore: the lock is held until unlock.
func (n *pidNamespaces) join(ctx context.Context, c engine.Container) (unlock func(started bool), err error) {
	nobody := func(bool) {}
	id, ok := pidNamespaceOwner(c.Spec)
	if !ok || id == c.ID {
		return nobody, nil
	}
	owner := n.containers.get(id)
	if err := owner.lock(ctx); err != nil {
		return nobody, fmt.Errorf("join the pid namespace of container %s: %w", id, err)
	}
	if err := n.joinable(ctx, owner); err != nil {
		owner.turn.unlock()
		return nobody, fmt.Errorf("join the pid namespace of container %s: %w", id, err)
	}
	owner.joining = c.ID
	return func(started bool) {
		if started {
			owner.joining = ""
		}
		owner.turn.unlock()
	}, nil
}

// joinable tells whether the owner of a pid namespace runs. Its turn is held.
func (n *pidNamespaces) joinable(ctx context.Context, owner *container) error {
	if owner.joining != "" {
		err := n.control.call(ctx, methodDestroy, owner.joining, nil)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("destroy container %s, which was not started there: %w", owner.joining, err)
		}
		owner.joining = ""
	}
	state, err := n.control.state(ctx, owner.id)
	switch {
	case errdefs.IsNotFound(err):
		return fmt.Errorf("it is not in the sandbox: %w", errdefs.ErrFailedPrecondition)
	case err != nil:
		return err
	case state != guestStateRunning:
		return fmt.Errorf("it does not run: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// explainStart also knows the end of a pid namespace that was joined, which may come
// at any moment: Linux, too, makes no process there then (ENOMEM).
func (n *pidNamespaces) explainStart(c engine.Container, err error) error {
	if id, ok := pidNamespaceOwner(c.Spec); ok && id != c.ID && isAnswer(err, "creating process: out of memory") {
		return fmt.Errorf("container %s, whose pid namespace it was to join, has ended: %w: %w", id, err, errdefs.ErrFailedPrecondition)
	}
	return n.control.explain(err)
}

func pidNamespaceOwner(spec *specs.Spec) (string, bool) {
	if spec.Linux == nil {
		return "", false
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return engine.PIDNamespaceOwner(ns.Path)
		}
	}
	return "", false
}

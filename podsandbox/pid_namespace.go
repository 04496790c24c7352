package podsandbox

import (
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// targetPIDNamespace is the path of the PID namespace of the container that c names
// as its target, which is a running one of the same pod; empty without a target.
func (b *specMaker) targetPIDNamespace(c *state.Container) (string, error) {
	o := c.Config().GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o.GetPid() != runtimeapi.NamespaceMode_TARGET {
		return "", nil
	}
	path, err := b.pidNamespaceOf(c.Pod, o.GetTargetId())
	if err != nil {
		return "", fmt.Errorf("join the PID namespace of a target: %w", err)
	}
	return path, nil
}

func (b *specMaker) pidNamespaceOf(p *state.Pod, id string) (string, error) {
	target, err := b.pods.FindContainer(id)
	if err != nil {
		return "", err
	}
	if target.Pod != p {
		return "", fmt.Errorf("container %s is of another pod: %w", target.ID(), errdefs.ErrInvalidArgument)
	}
	if ph := target.Phase(); ph != lifecycle.Running {
		return "", fmt.Errorf("container %s is not running (%s): %w", target.ID(), ph, errdefs.ErrFailedPrecondition)
	}
	s, err := target.Spec()
	if err != nil {
		return "", err
	}
	path := spec.PIDNamespace(s)
	if path == "" {
		return "", fmt.Errorf("container %s has a PID namespace without a name, from an earlier version or a plugin; one that is created now can be joined: %w",
			target.ID(), errdefs.ErrFailedPrecondition)
	}
	return path, nil
}

// checkPIDNamespace tells early, and in terms of the request, what the engine would
// find out, too: the container in whose PID namespace c is to start has ended since.
func (b *specMaker) checkPIDNamespace(c *state.Container, s *specs.Spec) error {
	owner, ok := engine.PIDNamespaceOwner(spec.PIDNamespace(s))
	if !ok || owner == c.ID() {
		return nil
	}
	if _, err := b.pidNamespaceOf(c.Pod, owner); err != nil {
		return fmt.Errorf("join the PID namespace of a target: %w", err)
	}
	return nil
}

package gvisor

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// needsHostf refuses what an application kernel cannot give.
func needsHostf(format string, args ...any) error {
	return fmt.Errorf("%s: not possible in a gVisor sandbox: %w", fmt.Sprintf(format, args...), engine.ErrNeedsHost)
}

// Validate implements engine.Engine.
func (e *Engine) Validate(pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) error {
	if container == nil {
		return firstError(pod, append(podChecks(), e.privilegedPod))
	}
	return firstError(container, containerChecks())
}

// ValidateSpec implements engine.Engine.
func (*Engine) ValidateSpec(before, after *specs.Spec) error {
	if before == nil {
		return firstError(change{&specs.Spec{}, after}, []func(change) error{specDevices, specSeccomp})
	}
	return firstError(change{before, after}, specChecks())
}

func firstError[T any](v T, checks []func(T) error) error {
	for _, check := range checks {
		if err := check(v); err != nil {
			return err
		}
	}
	return nil
}

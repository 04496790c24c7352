package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Handlers are the engines of a node by runtime handler; "" is one. An engine may have
// several names.
type Handlers map[string]Engine

// Names are the runtime handlers, sorted.
func (h Handlers) Names() []string { return slices.Sorted(maps.Keys(h)) }

// Engine is the one of a runtime handler; another name is errdefs.ErrInvalidArgument.
func (h Handlers) Engine(handler string) (Engine, error) {
	if e := h[handler]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("runtime handler %q is not configured; configured are %q: %w", handler, h.Names(), errdefs.ErrInvalidArgument)
}

// Validate is Engine.Validate of a handler's engine. What that cannot give and another
// one can says so, with its name.
func (h Handlers) Validate(handler string, pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) error {
	return h.ask(handler, func(e Engine) error { return e.Validate(pod, container) })
}

// ValidateSpec is Engine.ValidateSpec, as Validate.
func (h Handlers) ValidateSpec(handler string, before, after *specs.Spec) error {
	return h.ask(handler, func(e Engine) error { return e.ValidateSpec(before, after) })
}

// ask asks the engine of a handler, and the others when that needs the host.
func (h Handlers) ask(handler string, validate func(Engine) error) error {
	e, err := h.Engine(handler)
	if err != nil {
		return err
	}
	refusal := validate(e)
	if !errors.Is(refusal, ErrNeedsHost) {
		return refusal
	}
	for _, name := range h.Names() {
		if other := h[name]; other != e && validate(other) == nil {
			return UseHandler(refusal, name)
		}
	}
	return refusal
}

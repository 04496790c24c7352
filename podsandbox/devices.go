package podsandbox

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// accept takes or refuses what others have changed in a spec.
type accept func(before, after *specs.Spec) error

// injectDevices applies the CDI devices of a request to its spec.
func (b *specMaker) injectDevices(c *state.Container, s *specs.Spec) error {
	names, err := cdi.Requested(c.Config())
	if err != nil {
		return err
	}
	return b.inject(s, names, b.changesOf(c))
}

// injectForPlugins applies the devices that plugins name. What the engine cannot give of
// them is refused with all that the plugins have changed.
func (b *specMaker) injectForPlugins(s *specs.Spec, names []string) error {
	return b.inject(s, names, spec.NormalizeChanges)
}

// inject leaves s as it was when a device cannot be had.
func (b *specMaker) inject(s *specs.Spec, names []string, accept accept) error {
	before := *s
	before.Mounts = slices.Clone(s.Mounts)
	if s.Linux != nil {
		linux := *s.Linux
		linux.Devices = slices.Clone(s.Linux.Devices)
		before.Linux = &linux
	}
	err := b.devices.Inject(s, names, func(edits *specs.Spec) error {
		if edits.Linux == nil {
			edits.Linux = &specs.Linux{}
		}
		if s.Linux != nil {
			edits.Linux.UIDMappings, edits.Linux.GIDMappings = s.Linux.UIDMappings, s.Linux.GIDMappings
		}
		return accept(&specs.Spec{}, edits)
	})
	if err != nil {
		return err
	}
	return accept(&before, s)
}

// changesOf brings what others have changed in the spec of a container into the form of
// package spec, and refuses what its engine cannot give.
func (b *specMaker) changesOf(c *state.Container) accept {
	return func(before, after *specs.Spec) error {
		if err := spec.NormalizeChanges(before, after); err != nil {
			return err
		}
		return b.engines.ValidateSpec(c.Pod.Meta.Handler, before, after)
	}
}

package podsandbox

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// injectDevices applies the CDI devices of a request to its spec.
func (b *specMaker) injectDevices(c *state.Container, s *specs.Spec) error {
	names, err := cdi.Requested(c.Config())
	if err != nil {
		return err
	}
	return b.injectNamed(s, names)
}

// injectNamed leaves s as it was when a device cannot be had.
func (b *specMaker) injectNamed(s *specs.Spec, names []string) error {
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
		return spec.AdoptForeign(&specs.Spec{}, edits)
	})
	if err != nil {
		return err
	}
	return spec.AdoptForeign(&before, s)
}

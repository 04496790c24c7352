package gvisor

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
)

// masksOf never returns nil: without masks, the Sentry would give a process of
// root all capabilities.
func masksOf(c *specs.LinuxCapabilities) (*capabilityMasks, error) {
	m := &capabilityMasks{}
	if c == nil {
		return m, nil
	}
	for _, set := range []struct {
		mask  *uint64
		names []string
	}{
		{&m.PermittedCaps, c.Permitted}, {&m.InheritableCaps, c.Inheritable},
		{&m.EffectiveCaps, c.Effective}, {&m.BoundingCaps, c.Bounding}, {&m.AmbientCaps, c.Ambient},
	} {
		var err error
		if *set.mask, err = capability.Mask(set.names); err != nil {
			return nil, err
		}
	}
	return m, nil
}

package podsandbox

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// injectDevices applies the CDI devices of a request to its spec.
func (m *Manager) injectDevices(c *container, s *specs.Spec) error {
	names, err := cdi.Requested(c.config())
	if err != nil {
		return err
	}
	return m.injectNamed(s, names)
}

func (m *Manager) injectNamed(s *specs.Spec, names []string) error {
	before := *s
	before.Mounts = append([]specs.Mount(nil), s.Mounts...)
	err := m.opts.Devices.Inject(s, names, func(edits *specs.Spec) error { return spec.AdoptForeign(&specs.Spec{}, edits) })
	if err != nil {
		return err
	}
	return spec.AdoptForeign(&before, s)
}

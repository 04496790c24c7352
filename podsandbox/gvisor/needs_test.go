package gvisor

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A container gets raw sockets only where its spec needs them.
func TestStartGivesRightsOfTheSpec(t *testing.T) {
	translator := &translator{}
	for name, tc := range map[string]struct {
		change func(*specs.Spec)
		raw    bool
	}{
		"as Kubernetes asks by default": {raw: true},
		"without the capability":        {change: func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}} }},
	} {
		spec := shell(t.TempDir(), "true")
		if tc.change != nil {
			tc.change(spec)
		}
		p, err := translator.prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		if conf := p.settings.ofContainer(p); conf.EnableRaw != tc.raw {
			t.Errorf("%s: %+v", name, conf)
		}
	}
}

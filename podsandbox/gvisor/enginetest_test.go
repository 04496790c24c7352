package gvisor

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// TestContractOfTheEngine is the suite that the fake engine of other tests keeps, too.
func TestContractOfTheEngine(t *testing.T) {
	needSandboxes(t)
	root := newRootfs(t)
	enginetest.Run(t, enginetest.Subject{
		Engine: func(t testing.TB) engine.Engine { return newTestEngine(t) },
		Config: func(t testing.TB) engine.Config { return podConfig(t, newTestNetNS(t)) },
		Spec:   func(_ testing.TB, script string) *specs.Spec { return shell(root, script) },
	})
}

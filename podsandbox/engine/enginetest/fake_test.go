package enginetest

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestEngineKeepsTheContract(t *testing.T) {
	node := New()
	Run(t, Subject{
		Engine: func(testing.TB) engine.Engine { return node },
		Config: func(t testing.TB) engine.Config { return engine.Config{ID: newID(), Dir: t.TempDir()} },
		Spec: func(_ testing.TB, script string) *specs.Spec {
			return &specs.Spec{
				Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/"},
				Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
			}
		},
	})
	if left := node.Sandboxes(); len(left) > 0 {
		t.Errorf("%d sandboxes are left", len(left))
	}
}

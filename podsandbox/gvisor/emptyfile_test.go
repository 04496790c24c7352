package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// What a gofer could write to is no file of another pod.
func TestEmptyFileIsThePodsOwn(t *testing.T) {
	e := newTestEngine(t)
	root := newRootfs(t)
	if err := os.WriteFile(filepath.Join(root, "etc/secret"), []byte("the secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, "cat /etc/secret")
	spec.Linux.MaskedPaths = []string{"/etc/secret"}
	sources := map[string]bool{}
	for range 2 {
		p := bootPod(t, e)
		if err := p.StartRoot(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if out, code := p.run(spec); out != "" || code != 0 {
			t.Errorf("the masked file shows %q, code %d", out, code)
		}
		prepared, err := p.translator.prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range prepared.spec.Mounts {
			if m.Destination == "/etc/secret" {
				sources[m.Source] = true
				if !strings.HasPrefix(m.Source, p.cfg.Dir+"/") {
					t.Errorf("%s is not in the pod's directory", m.Source)
				}
			}
		}
	}
	if len(sources) != 2 {
		t.Errorf("two pods show %v", sources)
	}
}

package network

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzPodCIDR takes what the kubelet says the addresses of pods are: refused, or
// good for a template.
func FuzzPodCIDR(f *testing.F) {
	for _, s := range []string{"", "10.1.0.0/16", "10.1.0.0/16,fd00::/64", "10.0.0.0/99", ",", "10.1.0.1/16, x", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, cidrs string) {
		data, err := parsePodCIDR(cidrs)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "template")
		if err := os.WriteFile(path, []byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"t","ipam":{"subnet":"{{.PodCIDR}}"}}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := renderConfig(path, data); err != nil {
			t.Errorf("%q is taken and makes no configuration: %v", cidrs, err)
		}
	})
}

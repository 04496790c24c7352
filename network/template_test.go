package network

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const testTemplate = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "ipam": {"type": "host-local",
"ranges": [{{range $i, $r := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$r}}"}]{{end}}],
"routes": [{{range $i, $r := .Routes}}{{if $i}}, {{end}}{"dst": "{{$r}}"}{{end}}], "first": "{{.PodCIDR}}"}}]}`

// templated makes a CNI with a template of this content, and its directory.
func templated(t *testing.T, content string) (*CNI, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "template")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "conf")
	c, err := NewCNI(Options{ConfDir: conf, BinDirs: []string{"/opt/cni/bin"}, CacheDir: filepath.Join(dir, "cache"), ConfTemplate: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, conf
}

func TestSetPodCIDRFillsTheTemplate(t *testing.T) {
	c, dir := templated(t, testTemplate)
	for _, cidrs := range []string{"10.1.2.0/24", "10.9.0.0/24, fd00::/64"} { // the second replaces the first
		if err := c.SetPodCIDR(cidrs); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, renderedName))
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(raw) {
			t.Errorf("no JSON: %s", raw)
		}
		for _, cidr := range strings.Split(cidrs, ", ") {
			if !strings.Contains(string(raw), `"subnet": "`+cidr+`"`) {
				t.Errorf("%s is not in %s", cidr, raw)
			}
		}
		if !strings.Contains(string(raw), `"first": "`+strings.Split(cidrs, ",")[0]+`"`) || !strings.Contains(string(raw), "0.0.0.0/0") ||
			strings.Contains(string(raw), "::/0") != strings.Contains(cidrs, "fd00") {
			t.Errorf("first range or routes: %s", raw)
		}
		if _, err := loadConfig(dir); err != nil {
			t.Error(err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("more than the configuration was left: %v", entries)
	}
}

func TestSetPodCIDRLeavesAnotherNetworkAlone(t *testing.T) {
	c, dir := templated(t, testTemplate)
	os.MkdirAll(dir, 0o755)
	other := `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp"}]}`
	if err := os.WriteFile(filepath.Join(dir, "05-other.conflist"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPodCIDR("10.1.2.0/24"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, renderedName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a second network was written: %v", err)
	}
}

func TestSetPodCIDRRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		template, cidrs string
		want            error
	}{
		"empty changes nothing": {testTemplate, "", nil},
		"no prefix":             {testTemplate, "10.1.2.0", errdefs.ErrInvalidArgument},
		"one of two":            {testTemplate, "10.1.2.0/24,x", errdefs.ErrInvalidArgument},
		"bad template":          {"{{.PodCIDR", "10.1.2.0/24", errdefs.ErrFailedPrecondition},
		"unknown field":         {"{{.Nodes}}", "10.1.2.0/24", errdefs.ErrFailedPrecondition},
		"no JSON":               {"{{.PodCIDR}}", "10.1.2.0/24", errdefs.ErrFailedPrecondition},
		"no plugins":            {`{"cniVersion": "1.0.0", "name": "net", "plugins": []}`, "10.1.2.0/24", errdefs.ErrFailedPrecondition},
	} {
		cni, dir := templated(t, c.template)
		if err := cni.SetPodCIDR(c.cidrs); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("%s: something was written: %v", name, entries)
		}
	}
	c, _ := templated(t, testTemplate)
	c.confTemplate = ""
	if err := c.SetPodCIDR("10.1.2.0/24"); err != nil {
		t.Errorf("without a template: %v", err)
	}
	if err := c.SetPodCIDR("nonsense"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("nonsense without a template: %v", err)
	}
}

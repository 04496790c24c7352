package network

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadConfig(t *testing.T) {
	list := func(name string) string {
		return `{"cniVersion":"1.0.0","name":"` + name + `","plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"portmap"}]}`
	}
	for name, tc := range map[string]struct {
		files   map[string]string
		network string   // what is loaded
		plugins []string // and runs
		says    []string // or why it is not
	}{
		"empty directory":  {says: []string{"no network is configured", "DIR"}},
		"other files only": {files: map[string]string{"README": list("a"), "x.conflist.swp": "", "y.conflist~": list("b")}, says: []string{"no CNI configuration file"}},
		"list":             {files: map[string]string{"10-a.conflist": list("a")}, network: "a", plugins: []string{"bridge", "host-local", "portmap"}},
		"first by name":    {files: map[string]string{"20-a.conflist": list("a"), "10-b.conflist": list("b")}, network: "b"},
		"kinds are mixed":  {files: map[string]string{"20-a.conflist": list("a"), "10-b.conf": `{"cniVersion":"0.3.1","name":"b","type":"ptp"}`}, network: "b", plugins: []string{"ptp"}},
		"json":             {files: map[string]string{"1.json": `{"name":"c","type":"ptp"}`}, network: "c"},
		"broken is passed over": {
			files:   map[string]string{"10-a.conflist": "{", "15-b.conf": `{"name":"x"}`, "20-c.conflist": list("c")},
			network: "c",
		},
		"directory is passed over": {files: map[string]string{"10-a.conflist/x": "", "20-c.conflist": list("c")}, network: "c"},
		"all broken":               {files: map[string]string{"10-a.conflist": "{", "20-b.conflist": "also"}, says: []string{"DIR/10-a.conflist", "parse"}},
		"list as conf":             {files: map[string]string{"10-a.conf": list("a")}, says: []string{"10-a.conf", ".conflist"}},
		"no plugins":               {files: map[string]string{"10-a.conflist": `{"cniVersion":"1.0.0","name":"a","plugins":[]}`}, says: []string{"10-a.conflist", "no plugins"}},
		"no plugins key":           {files: map[string]string{"10-a.conflist": `{"cniVersion":"1.0.0","name":"a"}`}, says: []string{"10-a.conflist", "names no plugin"}},
		"no name":                  {files: map[string]string{"10-a.conflist": `{"plugins":[{"type":"ptp"}]}`}, says: []string{"10-a.conflist", "name"}},
		"name that is a path":      {files: map[string]string{"10-a.conflist": list("../../etc")}, says: []string{"10-a.conflist", "network name"}},
		"version of the future":    {files: map[string]string{"10-a.conflist": `{"cniVersion":"9.0.0","name":"a","plugins":[{"type":"ptp"}]}`}, says: []string{"9.0.0"}},
		"newest common version":    {files: map[string]string{"10-a.conflist": `{"cniVersions":["0.4.0","1.1.0","9.0.0"],"name":"a","plugins":[{"type":"ptp"}]}`}, network: "a"},
		"too large":                {files: map[string]string{"10-a.conflist": list("a") + strings.Repeat(" ", maxConfigBytes)}, says: []string{"10-a.conflist", "larger"}},
		"plugins of a directory": {
			files:   map[string]string{"10-a.conflist": list("a"), "a/10-x.conf": `{"type":"tuning"}`, "b/10-y.conf": `{"type":"other"}`},
			network: "a", plugins: []string{"bridge", "host-local", "portmap", "tuning"},
		},
		"plugins of a directory alone": {
			files:   map[string]string{"10-a.conflist": `{"cniVersion":"1.1.0","name":"a"}`, "a/10-x.conf": `{"type":"tuning"}`},
			network: "a", plugins: []string{"tuning"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "net.d")
			for file, content := range tc.files {
				writeFile(t, filepath.Join(dir, file), content)
			}
			got, err := loadConfig(dir)
			if tc.says != nil {
				if !errdefs.IsUnavailable(err) {
					t.Fatalf("got %v; want unavailable", err)
				}
				for _, s := range tc.says {
					if !strings.Contains(err.Error(), strings.ReplaceAll(s, "DIR", dir)) {
						t.Errorf("%q does not say %q", err, s)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != tc.network {
				t.Errorf("loaded %q; want %q", got.Name, tc.network)
			}
			if tc.plugins == nil {
				return
			}
			// What is kept in a record must stand alone.
			kept, err := parseList(got.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if p := pluginTypes(kept); !slices.Equal(p, tc.plugins) {
				t.Errorf("plugins %v; want %v", p, tc.plugins)
			}
		})
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}]}`))
	f.Add([]byte(`{"name":"a","type":"ptp"}`))
	f.Add([]byte(`{"cniVersions":[1],"name":"a","disableGC":"maybe"}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"bridge"}]}`))
	f.Add([]byte(`{"cniVersion":"9.9.9","name":"a","plugins":[{"type":"bridge"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if one, err := listOfOne(raw); err == nil {
			_, _ = parseList(one)
		}
		list, err := parseList(raw)
		if err != nil {
			return
		}
		if strings.ContainsAny(list.Name, "/\x00") {
			t.Errorf("network name %q names no file", list.Name)
		}
		if v := list.CNIVersion; v != "" && !slices.Contains(version.All.SupportedVersions(), v) {
			t.Errorf("version %q is taken", v)
		}
	})
}

// TestLoadConfigPassesOverWhatIsNoFile: a FIFO must not hold up a pod, nor a status.
func TestLoadConfigPassesOverWhatIsNoFile(t *testing.T) {
	const list = `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"ptp"}]}`
	for name, tc := range map[string]struct {
		fifo  string
		files map[string]string
		says  string // empty when another is taken
	}{
		"configuration":         {"10-a.conflist", nil, "10-a.conflist"},
		"and another":           {"10-a.conflist", map[string]string{"20-b.conflist": list}, ""},
		"plugin of a directory": {"a/10-x.conf", map[string]string{"10-a.conflist": list}, "a/10-x.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tc.files {
				writeFile(t, filepath.Join(dir, file), text)
			}
			fifo := filepath.Join(dir, tc.fifo)
			if err := errors.Join(os.MkdirAll(filepath.Dir(fifo), 0o755), unix.Mkfifo(fifo, 0o600)); err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() {
				_, err := loadConfig(dir)
				answer <- err
			}()
			select {
			case err := <-answer:
				if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), tc.says+" is not a regular file")) {
					t.Errorf("error %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("it hangs")
			}
		})
	}
}

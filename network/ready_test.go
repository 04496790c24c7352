package network

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// failnet is a network of failcni alone; it needs no rights.
func failnet(t *testing.T, confDir string) *CNI {
	t.Helper()
	cni, err := NewCNI(Options{ConfDir: confDir, BinDirs: []string{filepath.Dir(program(t))}, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cni.Close)
	return cni
}

func TestReadyFollowsTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "cni", "net.d")
	cni := failnet(t, dir)
	file := filepath.Join(dir, "10-net.conflist")

	steps := []struct {
		what   string
		change func() error
		says   string // nothing when ready
	}{
		{"no directory", func() error { return nil }, "no network is configured"},
		{"empty directory", func() error { return os.MkdirAll(dir, 0o755) }, "no network is configured"},
		{"broken file", func() error { return os.WriteFile(file, []byte("{"), 0o644) }, file},
		{"missing plugin", func() error {
			return os.WriteFile(file, []byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"failcni"},{"type":"nosuch"}]}`), 0o644)
		}, "CNI plugin nosuch is not in"},
		{"missing address manager", func() error {
			return os.WriteFile(file, []byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"failcni","ipam":{"type":"noipam"}}]}`), 0o644)
		}, "CNI plugin noipam is not in"},
		{"good", func() error {
			return os.WriteFile(file, []byte(`{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"failcni"}]}`), 0o644)
		}, ""},
		{"a plugin's no", func() error {
			return os.WriteFile(file, []byte(`{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"failcni","actions":{"STATUS":"fail:50"}}]}`), 0o644)
		}, "network a is not ready"},
		{"too old to be asked", func() error {
			return os.WriteFile(file, []byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"failcni","actions":{"STATUS":"fail:50"}}]}`), 0o644)
		}, ""},
		{"directory replaced", func() error {
			if err := os.Rename(dir, dir+".old"); err != nil {
				return err
			}
			return os.MkdirAll(dir, 0o755)
		}, "no network is configured"},
	}
	for _, step := range steps {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		err := cni.Ready(t.Context())
		switch {
		case step.says == "" && err != nil:
			t.Errorf("%s: %v", step.what, err)
		case step.says == "":
		case !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), step.says) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: got %v", step.what, err)
		}
	}
}

func TestReadyIsBounded(t *testing.T) {
	dir := t.TempDir()
	cni := failnet(t, dir)
	log := filepath.Join(dir, "log")
	writeFile(t, filepath.Join(dir, "10-net.conflist"),
		`{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"failcni","log":"`+log+`","actions":{"STATUS":"hang"}}]}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- cni.Ready(ctx) }()
	eventually(t, "the plugin runs", func() bool { _, err := os.Stat(log); return err == nil })
	cancel()
	if err := <-ended; err == nil {
		t.Error("ready, though a plugin hangs")
	}
}

func TestNewCNIRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing":             {},
		"relative directory":  {ConfDir: "net.d", BinDirs: []string{"/bin"}, CacheDir: "/cache"},
		"no plugin directory": {ConfDir: "/net.d", CacheDir: "/cache"},
	} {
		if _, err := NewCNI(o); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pod cannot be attached where nothing is configured, and is no trouble to detach.
func TestCNIWithoutAConfiguration(t *testing.T) {
	cni := failnet(t, filepath.Join(t.TempDir(), "none"))
	if _, err := cni.Attach(t.Context(), Pod{ID: "x", NetNS: "/proc/self/ns/net"}); !errdefs.IsUnavailable(err) {
		t.Errorf("attach: %v", err)
	}
	if err := cni.Detach(t.Context(), Pod{ID: "x"}); err != nil {
		t.Errorf("detach: %v", err)
	}
	if err := cni.GC(t.Context(), nil); err != nil {
		t.Errorf("gc: %v", err)
	}
}

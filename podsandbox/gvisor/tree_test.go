package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Paths inside of a volume are looked up in it, whatever its links say.
func TestOpenInStaysInside(t *testing.T) {
	vol, outside := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(outside, "file"), nil, 0o600),
		os.WriteFile(filepath.Join(vol, "own"), nil, 0o600),
		os.Symlink(outside, filepath.Join(vol, "absolute")),
		os.Symlink(strings.Repeat("../", 20)+outside, filepath.Join(vol, "relative")),
		os.Symlink("/own", filepath.Join(vol, "inside")),
		os.Symlink("/proc/self/root/etc", filepath.Join(vol, "proc")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for below, want := range map[string]string{
		"own": "own", "inside": "own", "../own": "own",
		"absolute/file": "", "relative/file": "", "absolute": "", "proc": "", "../../etc/passwd": "",
	} {
		f, err := (served{source: vol, below: below}).openSource()
		switch {
		case err != nil && want != "":
			t.Errorf("%s: %v", below, err)
		case err == nil && want == "":
			t.Errorf("%s was found", below)
		}
		if err != nil {
			continue
		}
		got, _ := f.Stat()
		expected, _ := os.Stat(filepath.Join(vol, want))
		if !os.SameFile(got, expected) {
			t.Errorf("%s is another file", below)
		}
		f.Close()
	}
}

// What a gofer is told of its container: no destination, no source.
func TestGoferKnowsNoPaths(t *testing.T) {
	spec := shell("/the/root", "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/the/destination", Type: "bind", Source: "/the/source", Options: []string{"rbind", "ro"}})
	p := &preparedSpec{spec: spec, below: map[string]string{}}
	p.serveAll()
	made := p.goferSpec()
	if len(made.Mounts) != 2 || p.goferConfs() != "erofs:none,lisafs:none,lisafs:none" {
		t.Fatalf("%+v, %s", made.Mounts, p.goferConfs())
	}
	for i, m := range made.Mounts {
		if strings.Contains(m.Destination+m.Source, "the") {
			t.Errorf("mount %d: %+v", i, m)
		}
	}
	sent, err := p.sentryMounts([]specs.Mount{{}, {Options: []string{"ro", "overlayfs_stale_read", "something else"}}})
	if err != nil {
		t.Fatal(err)
	}
	m := sent[len(sent)-2] // the last is noMemoryAtTmp
	if m.Destination != "/the/destination" || strings.Contains(m.Source, "the") || strings.Join(m.Options, ",") != "rbind,ro,overlayfs_stale_read" {
		t.Errorf("the Sentry gets %+v", m)
	}
	if _, err := p.sentryMounts(nil); err == nil {
		t.Error("a gofer that has made nothing is believed")
	}
}

package rootfs

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// hostileRoot is a root file system whose links lead to a directory outside.
func hostileRoot(t *testing.T) (root, outside string) {
	t.Helper()
	root, outside = t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "data"), 0o750),
		os.Mkdir(filepath.Join(root, "etc"), 0o755),
		os.Symlink(outside, filepath.Join(root, "absolute")),
		os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "relative")),
		os.Symlink(filepath.Join(outside, "hosts"), filepath.Join(root, "etc/hosts")),
		os.Symlink("data", filepath.Join(root, "alias")), os.Symlink("/alias", filepath.Join(root, "alias2")),
		os.Symlink("circle", filepath.Join(root, "circle")),
		os.WriteFile(filepath.Join(root, "file"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return root, outside
}

func TestDirectoryInStaysInside(t *testing.T) {
	root, outside := hostileRoot(t)
	for _, name := range []string{"/data", "alias", "/alias2", "/../data"} {
		if got, err := directoryIn(root, name); err != nil || got != filepath.Join(root, "data") {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"/absolute", "/relative", "/none", "/data/none", outside} {
		if got, err := directoryIn(root, name); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"/file", "/circle", "/file/x"} {
		if got, err := directoryIn(root, name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestPlaceSeedStaysInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root, outside := hostileRoot(t)
	ids := []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}
	err := placeSeed(root, []engine.SeedEntry{
		{Path: "/etc/hosts", Mode: 0o640, Content: []byte("hosts")},
		{Path: "/absolute/a/x", Mode: 0o644, Content: []byte("x")},
		{Path: "/relative/r", Mode: os.ModeDir | 0o755},
		{Path: "/data", Mode: os.ModeDir | 0o755},
	}, idmap.Mapping{UIDs: ids, GIDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside are %v, %v", left, err)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		uid  uint32
	}{
		"etc/hosts": {0o640, 70000}, filepath.Join(outside, "a"): {os.ModeDir | 0o755, 70000},
		filepath.Join(outside, "a/x"): {0o644, 70000}, filepath.Join(outside, "r"): {os.ModeDir | 0o755, 70000},
		"data": {os.ModeDir | 0o750, 0}, // is the image's
	} {
		var st unix.Stat_t
		fi, err := os.Lstat(filepath.Join(root, name))
		if err == nil {
			err = unix.Lstat(filepath.Join(root, name), &st)
		}
		if err != nil || fi.Mode() != want.mode || st.Uid != want.uid {
			t.Errorf("%s: %v of %d, %v", name, fi, st.Uid, err)
		}
	}
}

// A layer goes with the mount that it is for.
func TestDropReplacedDropsLayers(t *testing.T) {
	p := Plan{Files: map[string]string{"/etc/hosts": "/state/hosts"}, Volumes: map[string]string{"/a": "/rootfs/a", "/b": "/rootfs/b"}}
	p.Layers = map[string]engine.Layer{"/": {}, "/etc/hosts": {}, "/a": {}, "/b": {}}
	p.DropReplaced(&specs.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Source: "proc"}, {Destination: "/etc/hosts", Source: "/plugin/hosts"},
		{Destination: "/a", Source: "/device/a"}, {Destination: "/b", Source: "/rootfs/b"},
	}})
	if got := slices.Sorted(maps.Keys(p.Layers)); !slices.Equal(got, []string{"/", "/b"}) {
		t.Errorf("layers of %v", got)
	}
}

func TestCheckVolumesAreBounded(t *testing.T) {
	many := make([]string, maxImageVolumes+1)
	deep := "/" + strings.Repeat("a/", spec.MaxPath)
	for _, bad := range [][]string{many, {"/data", deep}} {
		if err := checkVolumes(bad); !errdefs.IsInvalidArgument(err) || len(err.Error()) > 200 {
			t.Errorf("%v", err)
		}
	}
	if err := checkVolumes(append(many[:maxImageVolumes-1:maxImageVolumes-1], deep[:spec.MaxPath])); err != nil {
		t.Error(err)
	}
}

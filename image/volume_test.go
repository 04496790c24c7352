package image

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

func podIDs() idmap.Mapping {
	r := []specs.LinuxIDMapping{{HostID: 70000, Size: 65536}}
	return idmap.Mapping{UIDs: r, GIDs: r}
}

func volume(t *testing.T, s *Store, key string, img Image, ids idmap.Mapping) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "volumes", key)
	if err := s.MountVolume(key, img, target, ids); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmount(target) })
	return target
}

func wantOwner(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	if st := lstat(t, path); st.Uid != uid || st.Gid != gid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

// The files of a pod with a user namespace belong to its ids, those of the image
// and those that are changed; no other container notices.
func TestMountRootfsMapped(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	owned := func(name string, id int) func(*tar.Writer) {
		return entry(tar.Header{Name: name, Mode: 0o644, Uid: id, Gid: id}, name)
	}
	push(t, host+"/app", buildImage(t, v1.Config{}, gzipLayer(dirEntry("etc", 0o755), owned("etc/root", 0)), gzipLayer(owned("etc/app", 1000))))
	img := mustPull(t, s, host+"/app")
	target := filepath.Join(t.TempDir(), "mapped")
	if err := s.MountRootfs("mapped", img, target, podIDs()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmount(target) })
	plain := mounted(t, s, "plain", img)

	for name, id := range map[string]uint32{"": 0, "etc": 0, "etc/root": 0, "etc/app": 1000} {
		wantOwner(t, filepath.Join(target, name), 70000+id, 70000+id)
		wantOwner(t, filepath.Join(plain, name), id, id)
	}
	if err := os.WriteFile(target+"/etc/app", []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantOwner(t, target+"/etc/app", 71000, 71000)
	if got := readFile(t, plain+"/etc/app"); got != "etc/app" {
		t.Errorf("the other container reads %q", got)
	}
	if entries, err := os.ReadDir(s.dirs.mapped()); err != nil || len(entries) != 0 {
		t.Errorf("left after the mount: %v, %v", entries, err)
	}
	if err := s.UnmountRootfs(t.Context(), "mapped", target); err != nil {
		t.Fatal(err)
	}
	few := []specs.LinuxIDMapping{{ContainerID: 5, HostID: 70000, Size: 1}}
	if err := s.MountRootfs("few", img, target, idmap.Mapping{UIDs: few, GIDs: few}); err == nil {
		t.Error("the image's root belongs to nobody in the pod, and was mounted")
	}
	if keys, _ := s.RootfsKeys(); len(keys) != 1 {
		t.Errorf("keys %v", keys)
	}
}

// What a killed process left attached is detached, and the layers are still there.
func TestOpenTakesMappedLayersAway(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app", "hello")
	img := mustPull(t, s, host+"/app")
	err := s.rootfs.withLayers(podIDs(), func(f *os.File) error {
		if err := s.Close(); err != nil {
			return err
		}
		s = newStore(t, s.opts)
		if _, err := os.Stat(f.Name()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", f.Name(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, mounted(t, s, "k", img)+"/text"); got != "hello" {
		t.Errorf("the layers hold %q", got)
	}
}

func TestMountVolumeIsReadOnly(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/data", buildImage(t, v1.Config{}, gzipLayer(dirEntry("d", 0o755), file("d/one", "1")), gzipLayer(file("d/two", "2"))))
	push(t, host+"/empty", buildImage(t, v1.Config{}))
	img := mustPull(t, s, host+"/data")
	for name, ids := range map[string]idmap.Mapping{"plain": {}, "mapped": podIDs()} {
		dir := volume(t, s, name, img, ids)
		if one, two := readFile(t, dir+"/d/one"), readFile(t, dir+"/d/two"); one != "1" || two != "2" {
			t.Errorf("%s: reads %q, %q", name, one, two)
		}
		if err := os.WriteFile(dir+"/d/one", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: write: %v, want EROFS", name, err)
		}
		var st unix.Statfs_t
		const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
		if err := unix.Statfs(dir, &st); err != nil || st.Flags&want != want || st.Flags&unix.ST_NOEXEC != 0 {
			t.Errorf("%s: mount flags %#x, %v", name, st.Flags, err)
		}
		uid, gid, _ := ids.ToHost(0, 0)
		wantOwner(t, dir+"/d/two", uid, gid)
	}
	if entries, err := os.ReadDir(volume(t, s, "none", mustPull(t, s, host+"/empty"), idmap.Mapping{})); err != nil || len(entries) != 0 {
		t.Errorf("an image without layers holds %v, %v", entries, err)
	}
}

// A volume holds its layers like a root file system does.
func TestRemoveLeavesVolumesTheirLayers(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/data", "hello")
	img := mustPull(t, s, host+"/data")
	dir := volume(t, s, "v", img, idmap.Mapping{})
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := readFile(t, dir+"/text"); got != "hello" {
			t.Fatalf("reads %q", got)
		}
		// The mount may have it in memory.
		if layers, _ := filepath.Glob(s.dirs.snapshots() + "/*/fs/text"); len(layers) != 1 {
			t.Fatalf("the layer is gone: %v", layers)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = newStore(t, s.opts)
		if err := s.collector.sweep(scoped(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.UnmountRootfs(t.Context(), "v", dir); err != nil {
			t.Fatal(err)
		}
	}
	wantNothingLeft(t, s)
}

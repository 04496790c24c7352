package image

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

func TestMountRootfsIsWritableAndPrivate(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app", buildImage(t, v1.Config{}, gzipLayer(dirEntry("etc", 0o755), file("etc/conf", "image"))))
	img := mustPull(t, s, host+"/app")
	one, two := mounted(t, s, "one", img), mounted(t, s, "two", img)

	before, err := s.RootfsUsage(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one+"/etc/conf", []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one+"/new", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, two+"/etc/conf"); got != "image" {
		t.Errorf("the other container sees %q", got)
	}
	if st := lstat(t, one); st.Mode&0o7777 != 0o755 || st.Uid != 0 {
		t.Errorf("root directory has mode %o of %d", st.Mode&0o7777, st.Uid)
	}
	after, err := s.RootfsUsage(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if after.Bytes < before.Bytes+1<<20 || after.Inodes != before.Inodes+3 {
		t.Errorf("usage went from %+v to %+v", before, after)
	}
	if err := os.Link(one+"/new", one+"/same"); err != nil {
		t.Fatal(err)
	}
	if linked, err := s.RootfsUsage(t.Context(), "one"); err != nil || linked.Bytes >= after.Bytes+1<<20 || linked.Inodes != after.Inodes {
		t.Errorf("a second name took usage from %+v to %+v, %v", after, linked, err)
	}
	if err := s.MountRootfs("one", img, filepath.Join(t.TempDir(), "x"), idmap.Mapping{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second mount of a key: %v", err)
	}
	if got := readFile(t, one+"/etc/conf"); got != "changed" {
		t.Errorf("the refused mount did damage: %q", got)
	}
	for range 2 {
		if err := s.UnmountRootfs(t.Context(), "one", one); err != nil {
			t.Fatal(err)
		}
	}
	if exists(one) {
		t.Error("the target directory is still there")
	}
	if _, err := s.RootfsUsage(t.Context(), "one"); !errdefs.IsNotFound(err) {
		t.Errorf("usage of a removed rootfs: %v", err)
	}
	if keys, _ := s.RootfsKeys(); len(keys) != 1 || keys[0] != "two" {
		t.Errorf("keys %v", keys)
	}
}

func TestMountRootfsRefusesBadInput(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app", "x")
	img := mustPull(t, s, host+"/app")
	for _, key := range []string{"", ".", "..", "a/b", "../x", "a b", "a\x00"} {
		if err := s.MountRootfs(key, img, t.TempDir(), idmap.Mapping{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("mount %q: %v", key, err)
		}
		if err := s.UnmountRootfs(t.Context(), key, t.TempDir()); !errdefs.IsInvalidArgument(err) {
			t.Errorf("unmount %q: %v", key, err)
		}
	}
	if err := s.MountRootfs("k", Image{ID: "sha256:none"}, t.TempDir(), idmap.Mapping{}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.MountRootfs("k", img, blocked+"/target", idmap.Mapping{}); err == nil {
		t.Error("mounted below a file")
	}
	if keys, _ := s.RootfsKeys(); len(keys) != 0 {
		t.Errorf("left behind %v", keys)
	}
	mounted(t, s, "k", img) // the key is free
}

// Layers stay below a running container when the image is removed, also over a
// restart, and go with the last container.
func TestRemoveLeavesContainersTheirLayers(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app", "hello")
	img := mustPull(t, s, host+"/app")
	one, two := mounted(t, s, "one", img), mounted(t, s, "two", img)

	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.MountRootfs("three", img, filepath.Join(t.TempDir(), "x"), idmap.Mapping{}); !errdefs.IsNotFound(err) {
		t.Errorf("mount of a removed image: %v", err)
	}
	reopened := func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = newStore(t, s.opts)
		if err := s.collector.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	reopened()
	if err := s.UnmountRootfs(t.Context(), "one", one); err != nil {
		t.Fatal(err)
	}
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	dropCaches(t)
	if got := readFile(t, two+"/text"); got != "hello" {
		t.Errorf("container reads %q", got)
	}
	if err := s.UnmountRootfs(t.Context(), "two", two); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, s)
}

// dropCaches makes the next read go to the layer's files themselves.
func dropCaches(t *testing.T) {
	t.Helper()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
}

func TestMountRootfsOfManyLayers(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	const n = 127
	var layers []*rawLayer
	for i := range n {
		layers = append(layers, plainLayer(file(fmt.Sprintf("f%d", i), "x")))
	}
	push(t, host+"/app", buildImage(t, v1.Config{}, layers...))
	root := mounted(t, s, "c", mustPull(t, s, host+"/app"))
	if entries, err := os.ReadDir(root); err != nil || len(entries) != n {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestMountRootfsWithoutLayers(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app", buildImage(t, v1.Config{Env: []string{"A=b"}}))
	img := mustPull(t, s, host+"/app")
	if img.Size == 0 {
		t.Error("size is 0")
	}
	root := mounted(t, s, "c", img)
	if err := os.WriteFile(root+"/x", nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestMountRootfsWhileImagesAreRemoved(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app", "x")
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 15 {
				if w == 0 {
					if err := s.Remove(t.Context(), host+"/app"); err != nil {
						t.Error(err)
					}
					continue
				}
				img, err := s.Pull(t.Context(), host+"/app", nil)
				if err != nil {
					t.Error(err)
					continue
				}
				key := fmt.Sprintf("c%d-%d", w, i)
				target := filepath.Join(dir, key)
				err = s.MountRootfs(key, img, target, idmap.Mapping{})
				if errdefs.IsNotFound(err) {
					continue // removed since
				} else if err != nil {
					t.Error(err)
					continue
				}
				if got, err := os.ReadFile(target + "/text"); err != nil || string(got) != "x" {
					t.Errorf("container reads %q, %v", got, err)
				}
				if err := s.UnmountRootfs(t.Context(), key, target); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Remove(t.Context(), host+"/app"); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, s)
}

func BenchmarkRootfs(b *testing.B) {
	host := newRegistry(b, nil)
	s := newStore(b, Options{})
	push(b, host+"/app", buildImage(b, v1.Config{}, gzipLayer(file("a", "x")), gzipLayer(file("b", "x")), gzipLayer(file("c", "x"))))
	img := mustPull(b, s, host+"/app")
	target := filepath.Join(b.TempDir(), "t")
	b.Run("mount+unmount", func(b *testing.B) {
		for b.Loop() {
			if err := s.MountRootfs("k", img, target, idmap.Mapping{}); err != nil {
				b.Fatal(err)
			}
			if err := s.UnmountRootfs(b.Context(), "k", target); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Get(b.Context(), host+"/app"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("usage", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Usage(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package image

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// smallDisk mounts a file system of so many bytes for the test.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func freeBytes(t *testing.T, dir string) int {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Bavail) * int(st.Bsize)
}

func TestPullOnFullDisk(t *testing.T) {
	random := make([]byte, 12<<20)
	_, _ = rand.Read(random)
	for name, l := range map[string]*rawLayer{
		"download": plainLayer(file("random", string(random))),
		"unpack":   gzipLayer(file("small", "x"), file("zeros", string(make([]byte, 64<<20)))),
	} {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t, 8<<20)
			host := newRegistry(t, nil)
			s := newStore(t, Options{Root: filepath.Join(disk, "images")})
			push(t, host+"/big", buildImage(t, v1.Config{}, gzipLayer(file("first", strings.Repeat("x", 1000))), l))
			before := freeBytes(t, disk)
			if _, err := s.Pull(t.Context(), host+"/big", nil); !errdefs.IsResourceExhausted(err) {
				t.Errorf("pull: %v", err)
			}
			// The databases may have grown by some pages.
			if after := freeBytes(t, disk); before-after > 256<<10 {
				t.Errorf("%d bytes are gone when Pull returns", before-after)
			}
			wantNothingLeft(t, s)
			pushSmall(t, host+"/small", "fits")
			mustPull(t, s, host+"/small")
		})
	}
}

// The disk may fill up at any step, also in a database.
func TestPullOnFullDiskAtEachStep(t *testing.T) {
	host := newRegistry(t, nil)
	var layers []*rawLayer
	for i := range 6 {
		layers = append(layers, gzipLayer(file(fmt.Sprintf("f%d", i), strings.Repeat("x", 30<<10))))
	}
	push(t, host+"/app", buildImage(t, v1.Config{}, layers...))
	failures := 0
	for left := 0; left <= 640<<10; left += 8 << 10 {
		disk := smallDisk(t, 2<<20)
		s := newStore(t, Options{Root: filepath.Join(disk, "images")})
		if err := s.collector.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		filler := filepath.Join(disk, "filler")
		if err := os.WriteFile(filler, make([]byte, max(freeBytes(t, disk)-left, 0)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Pull(t.Context(), host+"/app", nil)
		if err == nil { // and may have left no room for what follows
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			mounted(t, s, "c", mustPull(t, s, host+"/app"))
			continue
		}
		failures++
		if !errdefs.IsResourceExhausted(err) {
			t.Errorf("with %d bytes left: %v", left, err)
		}
		if found := leftovers(t, s); len(found) > 0 {
			t.Errorf("with %d bytes left: left behind: %v", left, found)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		img := mustPull(t, s, host+"/app")
		if got := readFile(t, mounted(t, s, "c", img)+"/f5"); len(got) != 30<<10 {
			t.Errorf("with %d bytes left: the retry holds %d bytes", left, len(got))
		}
	}
	if failures < 10 {
		t.Errorf("only %d pulls met a full disk", failures)
	}
}

// namesOnFullDisk fails where an image is all there and gets its names.
type namesOnFullDisk struct{ images.Store }

func (namesOnFullDisk) Create(context.Context, images.Image) (images.Image, error) {
	return images.Image{}, unix.ENOSPC
}

func TestPullOnFullDiskAtTheLastStep(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app", "x")
	good := s.backend.names
	s.backend.names = namesOnFullDisk{good}
	if _, err := s.Pull(t.Context(), host+"/app", nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("pull: %v", err)
	}
	s.backend.names = good
	wantNothingLeft(t, s)
	mustPull(t, s, host+"/app")
}

func TestMountRootfsOnFullDisk(t *testing.T) {
	disk := smallDisk(t, 2<<20)
	host := newRegistry(t, nil)
	s := newStore(t, Options{Root: filepath.Join(disk, "images")})
	pushSmall(t, host+"/app", "x")
	img := mustPull(t, s, host+"/app")
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, freeBytes(t, disk)), 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.MountRootfs("c", img, filepath.Join(t.TempDir(), "c"), idmap.Mapping{})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("mount: %v", err)
	}
	if keys, _ := s.RootfsKeys(); len(keys) > 0 {
		t.Errorf("left behind %v", keys)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mounted(t, s, "c", img)
}

// Usage is what du says, without the writable layers.
func TestUsageIsTrueToTheDisk(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	check := func(when string) Usage {
		t.Helper()
		if err := s.collector.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		u, err := s.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		disk := newTally()
		for _, dir := range []string{"content", "overlayfs", "meta.db"} {
			if err := disk.walk(t.Context(), filepath.Join(s.opts.Root, dir)); err != nil {
				t.Fatal(err)
			}
		}
		// The snapshotter's two directories are not counted.
		if u.Bytes > disk.bytes || disk.bytes-u.Bytes > 16<<10 || disk.inodes-u.Inodes > 4 {
			t.Errorf("%s: usage %+v, on disk %+v", when, u, *disk)
		}
		return u
	}
	check("empty")
	random := make([]byte, 3<<20)
	_, _ = rand.Read(random)
	for _, name := range []string{"/one", "/two"} {
		push(t, host+name, buildImage(t, v1.Config{}, gzipLayer(file("base", string(random))), gzipLayer(file(name, "x"))))
		mustPull(t, s, host+name)
	}
	full := check("two images")
	if full.Bytes < 3<<20 || full.Bytes > 4<<20 {
		t.Errorf("two images with one layer of 3 MiB in common take %d", full.Bytes)
	}
	for range 3 {
		check("again")
	}
	if u, _ := s.Usage(t.Context()); u.Mountpoint != s.opts.Root || u.Time.IsZero() {
		t.Errorf("usage %+v", u)
	}
	one, err := s.Get(t.Context(), host+"/one")
	if err != nil || one.Size < 3<<20 || one.Size > 4<<20 {
		t.Errorf("image size %d, %v", one.Size, err)
	}
	for _, name := range []string{"/one", "/two"} {
		if err := s.Remove(t.Context(), host+name); err != nil {
			t.Fatal(err)
		}
	}
	if empty := check("removed"); empty.Bytes > 1<<20 {
		t.Errorf("no images take %d", empty.Bytes)
	}
}

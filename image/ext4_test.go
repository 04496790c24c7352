package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// withOwnMounts runs a test again in a process with a mount namespace of its own,
// and reports whether this is that process. In the machine's namespace each
// sandbox that starts meanwhile would take a copy of the test's mounts along, and
// the file system would live on after it was unmounted here.
func withOwnMounts(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	const env = "CRI_SANDBOX_TEST_OWN_MOUNTS"
	if os.Getenv(env) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("SKIPPED: ")):
		t.Skipf("%s", out)
	}
	return false
}

// loopDisk is an ext4 file system in a file, which fails as a real one does.
type loopDisk struct {
	image, dir string
}

// newLoopDisk makes and mounts one of so many MiB and inodes. The test is skipped
// where the machine gives no loop device.
func newLoopDisk(t *testing.T, size, inodes int) *loopDisk {
	t.Helper()
	needRoot(t)
	base := t.TempDir()
	d := &loopDisk{image: filepath.Join(base, "disk"), dir: filepath.Join(base, "mount")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(int64(size) << 20)
		_ = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-N", fmt.Sprint(inodes), d.image).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mkfs.ext4: %v: %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		t.Skipf("SKIPPED: no loop device: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

func (d *loopDisk) mount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop,errors=remount-ro", d.image, d.dir).CombinedOutput()
}

// breakDown makes the file system find an error in itself, upon which it becomes
// read-only under the feet of those who have files open.
func (d *loopDisk) breakDown(t *testing.T) {
	t.Helper()
	loop, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", d.image).Output()
	if err != nil {
		t.Fatal(err)
	}
	trigger := "/sys/fs/ext4/" + filepath.Base(string(bytes.TrimSpace(loop))) + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("x"), 0); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
}

// repair does what an administrator does. Nothing of it is mounted or open.
func (d *loopDisk) repair(t *testing.T) {
	t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		t.Fatal(err)
	}
	// Exit code 1: errors were found and mended.
	if out, err := exec.Command("e2fsck", "-fy", d.image).CombinedOutput(); err != nil && !strings.Contains(err.Error(), "status 1") {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A disk that becomes read-only fails pulls, removals and new containers with a
// clear class; what is there goes on being served, and all is well again when
// the disk is.
func TestStoreOnADiskThatBecomesReadOnly(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	disk := newLoopDisk(t, 32, 2048)
	host := newRegistry(t, nil)
	opts := Options{Root: filepath.Join(disk.dir, "images")}
	s := newStore(t, opts)
	pushSmall(t, host+"/here", "here")
	pushSmall(t, host+"/new", "new")
	img := mustPull(t, s, host+"/here")
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "old", img)
	disk.breakDown(t)

	if _, err := s.Pull(t.Context(), host+"/new", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("pull: %v", err)
	}
	if err := s.MountRootfs("young", img, filepath.Join(t.TempDir(), "c"), idmap.Mapping{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("mount: %v", err)
	}
	if err := s.Remove(t.Context(), host+"/here"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove: %v", err)
	}
	if got, err := s.Get(t.Context(), host+"/here"); err != nil || got.ID != img.ID {
		t.Errorf("get: %v, %v", got.ID, err)
	}
	if got := readFile(t, root+"/text"); got != "here" {
		t.Errorf("the container reads %q", got)
	}
	if err := unmount(root); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()

	disk.repair(t)
	s = newStore(t, opts)
	again := filepath.Join(t.TempDir(), "again")
	if err := s.UnmountRootfs(t.Context(), "old", root); err != nil {
		t.Error(err)
	}
	if err := s.MountRootfs("again", img, again, idmap.Mapping{}); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, again+"/text"); got != "here" {
		t.Errorf("after the repair a container reads %q", got)
	}
	mustPull(t, s, host+"/new")
	if err := s.UnmountRootfs(t.Context(), "again", again); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"/here", "/new"} {
		if err := s.Remove(t.Context(), host+name); err != nil {
			t.Error(err)
		}
	}
	wantNothingLeft(t, s)
	_ = s.Close()
}

// A disk runs out of space, or of inodes while it has space.
func TestPullOnADiskOutOfSpaceOrInodes(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	var files []func(*tar.Writer)
	for i := range 2000 {
		files = append(files, file(fmt.Sprintf("f%d", i), ""))
	}
	for name, l := range map[string]*rawLayer{
		"space":  gzipLayer(file("zeros", string(make([]byte, 64<<20)))),
		"inodes": gzipLayer(files...),
	} {
		t.Run(name, func(t *testing.T) {
			disk := newLoopDisk(t, 24, 1024)
			host := newRegistry(t, nil)
			s := newStore(t, Options{Root: filepath.Join(disk.dir, "images")})
			push(t, host+"/big", buildImage(t, v1.Config{}, l))
			if _, err := s.Pull(t.Context(), host+"/big", nil); !errdefs.IsResourceExhausted(err) {
				t.Errorf("pull: %v", err)
			}
			wantNothingLeft(t, s)
			pushSmall(t, host+"/small", "fits")
			root := mounted(t, s, "c", mustPull(t, s, host+"/small"))
			if got := readFile(t, root+"/text"); got != "fits" {
				t.Errorf("holds %q", got)
			}
			if err := s.UnmountRootfs(t.Context(), "c", root); err != nil {
				t.Error(err)
			}
			_ = s.Close()
		})
	}
}

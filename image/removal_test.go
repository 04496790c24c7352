package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// withDescriptors runs f with no more descriptors to be had than n.
func withDescriptors(t *testing.T, n int, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := syscall.Rlimit{Cur: uint64(openDescriptors(t) + n), Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// A tree of any depth goes with a few descriptors, and with what lies next to the
// directories of its depths.
func TestRemovalOfADeepTree(t *testing.T) {
	root := t.TempDir()
	deepTree(t, root, 3000, func(at, level int) {
		fileAt(t, at, "a", 0)
		if level%100 == 0 {
			for i := range 50 {
				side := fmt.Sprint("side", i)
				if err := unix.Mkdirat(at, side, 0o755); err != nil {
					t.Fatal(err)
				}
				fileAt(t, at, side+"/x", 0)
			}
		}
	})
	withDescriptors(t, maxOpen+20, func() {
		if err := removeTree(filepath.Join(root, longName)); err != nil {
			t.Error(err)
		}
	})
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
}

func TestRemovalOfAHugeDirectory(t *testing.T) {
	root := mustMkdir(t, t.TempDir(), "root")
	manyFiles(t, mustMkdir(t, root, "d"), 20_000)
	if err := removeTree(root); err != nil || exists(root) {
		t.Errorf("removed: %v", err)
	}
	if err := removeTree(root); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := removeTree(filepath.Join(root, "in", "nothing")); err != nil {
		t.Errorf("in no directory: %v", err)
	}
}

// The target of a symbolic link stays, and what is mounted in a tree; the rest
// goes, and the error names what did not.
func TestRemovalStaysInside(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	root := mustMkdir(t, t.TempDir(), "root")
	outside, unharmed := victim(t)
	bind := mustMkdir(t, root, "a", "bind")
	for i := range 20 {
		mustMkdir(t, root, fmt.Sprint("b", i), "c")
	}
	for _, link := range []string{"link", "a/link"} {
		if err := os.Symlink(outside, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(outside, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bind, unix.MNT_DETACH) })
	if err := removeTree(root); err == nil || !strings.Contains(err.Error(), "a: bind: device or resource busy") {
		t.Errorf("with a mount: %v", err)
	}
	unharmed()
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
	if err := unix.Unmount(bind, 0); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(root); err != nil {
		t.Error(err)
	}
	unharmed()
}

// Around files that cannot be removed, in any depth, the rest goes, and the removal
// comes to an end.
func TestRemovalOfAnImmutableFile(t *testing.T) {
	needRoot(t)
	root := mustMkdir(t, t.TempDir(), "root")
	const immutable = 0x10 // FS_IMMUTABLE_FL, linux/fs.h
	setFlags := func(at int, flags int) error {
		fd, err := unix.Openat(at, "fixed", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	}
	const levels = 3 * maxOpen
	var ends []int // kept open, to find the files again
	defer func() {
		for _, fd := range ends {
			_ = unix.Close(fd)
		}
	}()
	deepTree(t, root, levels, func(at, level int) {
		if level != maxOpen/2 && level != levels-1 {
			return
		}
		fileAt(t, at, "fixed", 0)
		if err := setFlags(at, immutable); err != nil {
			t.Skipf("SKIPPED: no immutable files here: %v", err)
		}
		fd, err := unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, fd)
	})
	manyFiles(t, root, 100)
	if err := removeTree(root); err == nil || !strings.Contains(err.Error(), "fixed: operation not permitted") {
		t.Errorf("with immutable files: %v", err)
	}
	// The directory with the first of the files, and one that came up with the other.
	if left, err := os.ReadDir(root); err != nil || len(left) != 2 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
	for _, fd := range ends {
		if err := setFlags(fd, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeTree(root); err != nil || exists(root) {
		t.Errorf("without: %v", err)
	}
}

// Removals of one tree at a time, as by who unmounts it and by the collection, all succeed.
func TestRemovalBesideAnother(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	for range 5000 {
		if err := errors.Join(os.Mkdir(tree, 0o755), os.Mkdir(filepath.Join(tree, "a"), 0o755)); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error)
		for range 4 {
			go func() { errs <- removeTree(tree) }()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
}

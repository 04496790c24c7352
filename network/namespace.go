package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// CreateNamespace makes a network namespace whose loopback is up, and pins it at
// path by a bind mount over an empty file, as ip-netns(8) does. Missing parent
// directories are made. A namespace that is pinned there already is kept, so the call
// can be repeated after a crash. Needs CAP_SYS_ADMIN.
func CreateNamespace(path string) error {
	if namespaceExists(path) {
		return nil
	}
	if err := makeMountPoint(path); err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	err := inNewNamespace(func() error {
		// Before the mount: a pinned namespace is a complete one.
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
		crashpoint.Here("before netns pin")
		err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		crashpoint.Here("after netns pin")
		return err
	})
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	return nil
}

// makeMountPoint leaves an empty file at path, and never touches any other kind.
func makeMountPoint(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != 0 {
		return fmt.Errorf("path is taken by something else: %w", errdefs.ErrAlreadyExists)
	}
	return nil
}

// RemoveNamespace unpins the namespace at path and removes the file. The
// namespace itself lives on while a process is in it. A path that is not there is
// no error; anything but a pinned namespace or its empty file is left alone.
func RemoveNamespace(path string) error {
	crashpoint.Here("before netns unpin")
	for namespaceExists(path) { // once for each time that it was mounted
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount network namespace %s: %w", path, err)
		}
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	case !info.Mode().IsRegular() || info.Size() != 0:
		return fmt.Errorf("remove network namespace %s: it is not a namespace's file: %w", path, errdefs.ErrFailedPrecondition)
	}
	crashpoint.Here("after netns unpin")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	crashpoint.Here("after netns removal")
	return nil
}

// namespaceExists says whether a namespace is pinned at path. A leftover file
// without its mount, as after a reboot, is none.
func namespaceExists(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && int64(fs.Type) == unix.NSFS_MAGIC
}

// inNewNamespace runs f on a thread that is in a new network namespace. The
// namespace ends with f unless f pinned or opened it.
func inNewNamespace(f func() error) error {
	done := make(chan error, 1)
	// On a goroutine of its own, so that a thread that cannot go back is
	// discarded by the runtime, not handed to other work.
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// loopbackUp works on the calling thread's namespace, where lo is always the
// first interface.
func loopbackUp() error {
	return netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
}

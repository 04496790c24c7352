package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// mounter makes overlay mounts. All paths it hands to the kernel go through
// descriptors of the two directories they lie in: they stay short, which leaves room
// in the one page of mount options for some 140 layers, and a comma or a colon
// in the root's path cannot break the list.
type mounter struct {
	root    *os.File // <Root>
	layers  *os.File // <Root>/overlayfs/snapshots
	options string
}

// newMounter finds out by a trial mount which options the kernel takes, and
// whether the file system below root can carry an upper directory at all.
func newMounter(root, layers string) (*mounter, error) {
	m := &mounter{}
	var err error
	if m.root, err = openDirFile(root); err != nil {
		return nil, err
	}
	if m.layers, err = openDirFile(layers); err != nil {
		m.close()
		return nil, err
	}
	if m.options, err = m.probe(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func openDirFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	return f, nil
}

func (m *mounter) close() {
	for _, f := range []*os.File{m.root, m.layers} {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (m *mounter) probe() (string, error) {
	root := m.root.Name()
	dir, err := os.MkdirTemp(filepath.Join(root, "trash"), "probe-")
	if err != nil {
		return "", fmt.Errorf("probe overlay mounts: %w", err)
	}
	defer os.RemoveAll(dir)
	for _, sub := range []string{"fs", "work", "target"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return "", fmt.Errorf("probe overlay mounts: %w", err)
		}
	}
	// index and metacopy default to what the kernel was built with. An index
	// would tie an upper directory to the identity of its lower ones, which breaks
	// when the disk is copied. metacopy would leave the data of a changed file
	// in the image's layer, so that the writable layer lies about its size.
	fixed := ""
	for _, o := range []string{"index", "metacopy"} {
		if _, err := os.Stat("/sys/module/overlay/parameters/" + o); err == nil {
			fixed += "," + o + "=off"
		}
	}
	// volatile (Linux 5.10): otherwise each unmount writes all dirty data of
	// the whole disk back before it returns, and each fsync of a container
	// reaches the disk, for the sake of files that nobody reads after a crash.
	// userxattr is not for us: it is for mounts from inside a user namespace.
	rel := filepath.Join("trash", filepath.Base(dir))
	target := filepath.Join(dir, "target")
	var last error
	for _, options := range []string{fixed + ",volatile", fixed} {
		m.options = options
		if last = m.mount(nil, nil, rel, target); last == nil {
			if err := unmount(target); err != nil {
				return "", fmt.Errorf("probe overlay mounts: %w", err)
			}
			return options, nil
		}
	}
	return "", fmt.Errorf("image root %s cannot carry an overlay mount (%v); "+
		"use a root on ext4 or xfs, as root, with the overlay module loaded: %w", root, last, errdefs.ErrFailedPrecondition)
}

// mount joins the layer directories lower (relative to the directory layers, topmost
// first) and the directory dir (relative to the root, with fs and work in it) at
// target.
func (m *mounter) mount(layers *os.File, lower []string, dir, target string) error {
	root := fmt.Sprintf("/proc/self/fd/%d/", m.root.Fd())
	list := root + "empty"
	if len(lower) > 0 {
		list = joinPaths(layers, lower)
	}
	return m.overlay(target, 0, "lowerdir="+list+",upperdir="+root+dir+"/fs,workdir="+root+dir+"/work"+m.options, len(lower))
}

// view joins layer directories for reading only.
func (m *mounter) view(layers *os.File, lower []string, target string) error {
	if len(lower) == 0 {
		return unix.Mount("tmpfs", target, "tmpfs", guestFlags|unix.MS_RDONLY, "mode=755")
	}
	// Without an upper directory, an overlay has two different lower ones at least.
	list := joinPaths(layers, lower) + ":" + joinPaths(m.root, []string{"empty"})
	return m.overlay(target, unix.MS_RDONLY, "lowerdir="+list, len(lower))
}

func joinPaths(dir *os.File, names []string) string {
	prefix := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	return prefix + strings.Join(names, ":"+prefix)
}

// guestFlags are those of every mount that shows files of an image or a container.
// A set-uid program or a device among them has its effect in the sandbox, on whose
// kernel it runs, and none on the host, for whoever gets at the mount.
const guestFlags = unix.MS_NODEV | unix.MS_NOSUID

func (m *mounter) overlay(target string, flags uintptr, data string, layers int) error {
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("an image with %d layers has more than one mount can take: %w", layers, errdefs.ErrFailedPrecondition)
	}
	return unix.Mount("overlay", target, "overlay", guestFlags|flags, data)
}

// flush writes all dirty data of the file system below the root to disk.
func (m *mounter) flush() error { return unix.Syncfs(int(m.root.Fd())) }

// unmount takes away what is mounted at target; nothing there is no error. A
// mount that is in use vanishes from the tree at once and ends with its users.
func unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

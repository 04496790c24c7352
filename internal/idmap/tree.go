package idmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
)

// Attributes are what a copy of a mount tree has and its original has not.
type Attributes struct {
	// UserNS is the namespace whose mapping the files of the topmost mount are
	// seen through; nil leaves their owners. Mounts below it keep theirs, as the
	// OCI specification has it.
	UserNS *os.File
	// Recursive takes the mounts below along.
	Recursive bool
	// ReadOnly makes the tree read-only, with all the mounts in it.
	ReadOnly bool
}

// OpenTree copies the mount tree at path, as the calling thread's mount namespace
// has it, and returns the copy's root. It is attached nowhere; see Attach. A file
// system that cannot be mapped is errdefs.ErrFailedPrecondition.
func OpenTree(path string, a Attributes) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mount tree: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	root := os.NewFile(uintptr(fd), path)
	defer root.Close()
	return CopyTree(root, a)
}

// CopyTree is OpenTree of an open file or directory, which may be open with O_PATH.
func CopyTree(root *os.File, a Attributes) (*os.File, error) {
	path := root.Name()
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if a.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(root.Fd()), "", flags)
	if err != nil {
		return nil, fmt.Errorf("copy mount tree %s: %w", path, err)
	}
	tree := os.NewFile(uintptr(fd), path)
	cu := cleanup.Make(func() { tree.Close() })
	defer cu.Clean()
	if a.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return nil, fmt.Errorf("make mount tree %s read-only: %w", path, err)
		}
	}
	if a.UserNS != nil {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(a.UserNS.Fd())}
		err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("map ids of %s: its file system, or this kernel, cannot: %w: %w", path, err, errdefs.ErrFailedPrecondition)
		}
		if err != nil {
			return nil, fmt.Errorf("map ids of %s: %w", path, err)
		}
	}
	cu.Release()
	return tree, nil
}

// Attach mounts a tree at target, which exists.
func Attach(tree *os.File, target string) error {
	err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach mount tree at %s: %w", target, err)
	}
	return nil
}

// Probe reports whether mount trees on the file system of a directory can be mapped:
// nil, or why not.
func Probe(dir string) error {
	one := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 65536, Size: 65536}}
	ns, err := UserNamespace(Mapping{UIDs: one, GIDs: one})
	if err != nil {
		return err
	}
	defer ns.Close()
	return try(dir, Attributes{UserNS: ns})
}

// ProbeReadOnly reports whether mount trees can be made read-only with what lies
// below: nil, or why not.
func ProbeReadOnly(dir string) error {
	return try(dir, Attributes{Recursive: true, ReadOnly: true})
}

func try(dir string, a Attributes) error {
	tree, err := OpenTree(filepath.Clean(dir), a)
	if err != nil {
		return err
	}
	return tree.Close()
}

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A root file system comes from an image, so nothing in it is trusted: a path in it
// is followed as the container would, with the root file system as "/".

// inRoot opens a path of a root file system with the flags of openat2(2).
func inRoot(root *os.File, name string, flags int, mode os.FileMode) (*os.File, error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode.Perm()),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := openat2(int(root.Fd()), name, how)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openRoot(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// directoryIn finds a directory of a root file system and returns where it lies on the
// host. One that is not there is ErrNotFound, another kind of file
// ErrInvalidArgument.
func directoryIn(dir, name string) (string, error) {
	root, err := openRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := inRoot(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return "", fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case err != nil:
		return "", err
	}
	defer f.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// placeSeed writes files and directories into a root file system that is written to on
// the host. No container uses it yet.
func placeSeed(dir string, seed []engine.SeedEntry, ids idmap.Mapping) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	uid, gid, _ := ids.ToHost(0, 0)
	for _, e := range seed {
		if err := placeEntry(root, e, int(uid), int(gid)); err != nil {
			return err
		}
	}
	return nil
}

func placeEntry(root *os.File, e engine.SeedEntry, uid, gid int) error {
	directory := path.Dir(e.Path)
	if e.Mode.IsDir() {
		directory = e.Path
	}
	// Links are followed also to what is not there yet.
	real, err := fs.RootPath(root.Name(), directory)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	parent, err := makeDirectories(root, strings.TrimPrefix(real, root.Name()), uid, gid)
	if err != nil {
		return err
	}
	defer parent.Close()
	if e.Mode.IsDir() {
		return nil
	}
	fd := int(parent.Fd())
	// What the image has there may be a link, to anywhere.
	if err := unix.Unlinkat(fd, path.Base(e.Path), 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: e.Path, Err: err}
	}
	f, err := inRoot(parent, path.Base(e.Path), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, e.Mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(e.Content); err != nil {
		return err
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	return f.Chmod(e.Mode.Perm())
}

// makeDirectories opens a directory, and makes what is missing of it.
func makeDirectories(root *os.File, name string, uid, gid int) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	at, err := inRoot(root, "/", flags, 0)
	if err != nil {
		return nil, err
	}
	made := "/"
	for part := range strings.SplitSeq(strings.Trim(path.Clean(name), "/"), "/") {
		made = path.Join(made, part)
		next, err := inRoot(root, made, flags, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(int(at.Fd()), part, 0o755); err == nil || err == unix.EEXIST {
				next, err = inRoot(root, made, flags, 0)
			}
			if err == nil {
				err = errors.Join(next.Chown(uid, gid), next.Chmod(0o755))
			}
		}
		at.Close()
		if err != nil {
			return nil, fmt.Errorf("make directory %s: %w", made, err)
		}
		at = next
	}
	return at, nil
}

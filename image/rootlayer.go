package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// A root file system is written to in one of two ways: on the host, in the upper
// directory of an overlay mount, or in a sandbox, which keeps the contents of all files
// of a container in one file. Both lie in the directory of the root file system's key.

// layerPrefix begins the names of files that sandboxes write to.
const layerPrefix = "layer-"

// MountReadOnly mounts the root file system of an image at target, which is created,
// to be read and run only: what a container writes over it goes to files of
// LayerFile. All else is as with MountRootfs, the key, too.
func (s *Store) MountReadOnly(key string, img Image, target string, ids idmap.Mapping) error {
	return s.rootfs.mountReadOnly(key, img, target, ids)
}

func (r *rootfsStore) mountReadOnly(key string, img Image, target string, ids idmap.Mapping) error {
	return r.mountLayers(key, img, target, func(l layers, _ string) error {
		return r.withLayers(ids, func(dir *os.File) error { return r.mounts.view(dir, l.lower, target) })
	})
}

// LayerFile makes the n-th file for what a container writes over a root file system
// that is mounted to be read, and returns its path. It is empty, and goes with
// UnmountRootfs. One that is there already is ErrAlreadyExists.
func (s *Store) LayerFile(key string, n int) (string, error) { return s.rootfs.layerFile(key, n) }

func (r *rootfsStore) layerFile(key string, n int) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	path := filepath.Join(r.dirs.rootfs(key), layerPrefix+strconv.Itoa(n))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return "", fmt.Errorf("create layer %d of rootfs %s: %w", n, key, diskError(err))
	}
	return path, f.Close()
}

// Room is the size of the file system that root file systems are written on: bytes,
// and inodes, which are 0 where it does not count them.
func (s *Store) Room() (bytes, inodes uint64, err error) { return s.rootfs.room() }

func (r *rootfsStore) room() (bytes, inodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.mounts.root.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("look at the file system of %s: %w", r.dirs.root, err)
	}
	bytes = st.Blocks
	if size := uint64(st.Bsize); size > 0 && bytes < math.MaxUint64/size {
		bytes *= size
	}
	return bytes, st.Files, nil
}

// RootfsUsage measures what was written to a root file system, by walking it or by
// the blocks of its layers' files. Of the latter's inodes it knows nothing. An
// unknown key is errdefs.ErrNotFound.
func (s *Store) RootfsUsage(ctx context.Context, key string) (Usage, error) {
	return s.rootfs.usage(ctx, key)
}

func (r *rootfsStore) usage(ctx context.Context, key string) (Usage, error) {
	if err := checkKey(key); err != nil {
		return Usage{}, err
	}
	names, err := namesOf(r.dirs.rootfs(key))
	if errors.Is(err, fs.ErrNotExist) {
		return Usage{}, fmt.Errorf("rootfs %s: %w", key, errdefs.ErrNotFound)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("measure rootfs %s: %w", key, err)
	}
	t := newTally()
	for _, name := range names {
		if strings.HasPrefix(name, layerPrefix) {
			err = errors.Join(err, t.stat(filepath.Join(r.dirs.rootfs(key), name)))
		}
	}
	err = errors.Join(err, t.walk(ctx, r.dirs.upper(key))) // where there is one
	if err != nil {
		return Usage{}, fmt.Errorf("measure rootfs %s: %w", key, err)
	}
	return Usage{Mountpoint: r.dirs.root, Bytes: t.bytes, Inodes: t.inodes, Time: time.Now()}, nil
}

// namesOf lists a directory of ours, which is small.
func namesOf(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

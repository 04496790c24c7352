package image

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// rootfsStore owns the root file systems of containers, and the images mounted as
// volumes: their directories, mounts, and holds on layers.
type rootfsStore struct {
	dirs      layout
	mounts    *mounter
	catalog   *catalog
	collector *collector
	reserve   *reserve
	ctx       context.Context // ends with Close
}

// MountRootfs makes a writable root file system of an image and mounts it at
// target, which is created. The key names it from then on, also after a restart;
// it is made of letters, digits, '.', '_' and '-'. Until UnmountRootfs the
// layers below it stay, even when the image is removed. In a pod with a user
// namespace the files belong, on the host, to the ids that ids gives those of the
// image, and so do the ones that the container makes. After an error nothing is
// left. Errors: errdefs.ErrNotFound when the image was removed, ErrAlreadyExists
// when the key is in use, ErrFailedPrecondition where the store's file system
// cannot be mapped.
func (s *Store) MountRootfs(key string, img Image, target string, ids idmap.Mapping) error {
	return s.rootfs.mountWritable(key, img, target, ids)
}

func (r *rootfsStore) mountWritable(key string, img Image, target string, ids idmap.Mapping) error {
	return r.mountLayers(key, img, target, func(l layers, dir string) error {
		if err := r.makeUpper(dir, l, ids); err != nil {
			return fmt.Errorf("create rootfs %s: %w", key, diskError(err))
		}
		return r.withLayers(ids, func(dir *os.File) error {
			return r.mounts.mount(dir, l.lower, filepath.Join("rootfs", key), target)
		})
	})
}

// mountLayers holds an image's layers under a key, and has them mounted at target
// by the given function, which gets the directory that goes with the key.
func (r *rootfsStore) mountLayers(key string, img Image, target string, mount func(l layers, dir string) error) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		return fmt.Errorf("rootfs target %q must be absolute: %w", target, errdefs.ErrInvalidArgument)
	}
	l, err := r.catalog.known.hold(key, img.ID)
	if err != nil {
		return err
	}
	cu := cleanup.Make(func() { r.unhold(key) })
	defer cu.Clean()

	crashpoint.Here("before rootfs layer")
	dir := r.dirs.rootfs(key)
	if err := os.Mkdir(dir, 0o700); os.IsExist(err) {
		return fmt.Errorf("rootfs %s: its directory is left over, unmount it first: %w", key, errdefs.ErrAlreadyExists)
	} else if err != nil {
		return fmt.Errorf("create rootfs %s: %w", key, diskError(err))
	}
	cu.Add(func() { _ = os.RemoveAll(dir) })
	// The record comes first: what was ever mounted has one.
	if err := writeHold(dir, l); err != nil {
		return fmt.Errorf("create rootfs %s: %w", key, diskError(err))
	}
	crashpoint.Here("after rootfs layer")
	_, statErr := os.Lstat(target)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("create rootfs target %s: %w", target, diskError(err))
	}
	if os.IsNotExist(statErr) {
		cu.Add(func() { _ = os.Remove(target) })
	}
	if err := mount(l, dir); err != nil {
		return fmt.Errorf("mount rootfs %s: %w", key, err)
	}
	crashpoint.Here("after rootfs mount")
	cu.Release()
	return nil
}

// makeUpper makes the directories of a writable layer.
func (r *rootfsStore) makeUpper(dir string, l layers, ids idmap.Mapping) error {
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o700); err != nil {
		return err
	}
	// The root directory that a container sees is the upper one, so it takes over
	// owner and mode of the image'r.
	upper := filepath.Join(dir, "fs") // see layout.upper
	if err := os.Mkdir(upper, 0o755); err != nil {
		return err
	}
	like := unix.Stat_t{Mode: 0o755}
	if len(l.lower) > 0 {
		if err := unix.Fstatat(int(r.mounts.layers.Fd()), l.lower[0], &like, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("read layer directory %s: %w", l.lower[0], err)
		}
	}
	uid, gid, ok := ids.ToHost(like.Uid, like.Gid)
	if !ok {
		return fmt.Errorf("the image's root belongs to %d:%d, which the pod's user namespace does not have: %w",
			like.Uid, like.Gid, errdefs.ErrFailedPrecondition)
	}
	if err := unix.Chown(upper, int(uid), int(gid)); err != nil {
		return fmt.Errorf("set owner of %s: %w", upper, err)
	}
	return unix.Chmod(upper, like.Mode&0o7777)
}

// UnmountRootfs unmounts a root file system and deletes its writable layer and
// the target directory. It is idempotent, and goes on after a crash at any point.
func (s *Store) UnmountRootfs(_ context.Context, key, target string) error {
	return s.rootfs.unmount(key, target)
}

func (r *rootfsStore) unmount(key, target string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	crashpoint.Here("before rootfs unmount")
	if err := unmount(target); err != nil {
		return fmt.Errorf("unmount rootfs %s at %s: %w", key, target, err)
	}
	if err := unix.Rmdir(target); err != nil && err != unix.ENOENT {
		// Not ours to empty; the caller's directory holds it.
		klog.V(2).InfoS("Failed to remove the target directory of a rootfs; it stays", "target", target, "err", err)
	}
	crashpoint.Here("after rootfs unmount")
	// One rename makes it gone; what a crash leaves in the trash goes at Open.
	gone := filepath.Join(r.dirs.trash(), key+"."+rand.Text())
	if err := os.Rename(r.dirs.rootfs(key), gone); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove rootfs %s: %w", key, err)
	}
	crashpoint.Here("after rootfs rename")
	r.unhold(key)
	if err := removeTree(gone); err != nil {
		return fmt.Errorf("remove rootfs %s: %w", key, err)
	}
	crashpoint.Here("after rootfs removal")
	return nil
}

// RootfsKeys names all root file systems on disk, mounted or not, so that those
// without an owner can be unmounted at start-up.
func (s *Store) RootfsKeys() ([]string, error) { return s.rootfs.keys() }

func (r *rootfsStore) keys() ([]string, error) {
	entries, err := os.ReadDir(r.dirs.rootfs(""))
	if err != nil {
		return nil, fmt.Errorf("list rootfs directories: %w", err)
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		keys = append(keys, e.Name())
	}
	return keys, nil
}

// unhold ends a hold; layers whose image has been removed meanwhile go with
// their last one.
func (r *rootfsStore) unhold(key string) {
	chain, unused := r.catalog.known.unhold(key)
	if !unused {
		return
	}
	defer r.reserve.lend()()
	dropped, err := r.catalog.dropUnusedView(r.ctx, chain)
	if err != nil {
		// The next Open finds the view unused.
		klog.ErrorS(err, "Failed to release the layers of a removed image; they stay until the next start", "chain", chain)
	}
	if dropped {
		r.collector.sweepSoon()
	}
}

func checkKey(key string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if key == "" || len(key) > 200 || key == "." || key == ".." || strings.Trim(key, letters) != "" {
		return fmt.Errorf("rootfs key %q is not valid: %w", key, errdefs.ErrInvalidArgument)
	}
	return nil
}

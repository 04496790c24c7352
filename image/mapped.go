package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// withLayers calls f with the directory of all layers, in which their files have the
// owners that ids gives them.
//
// An overlay mount keeps mounts of its own of the lower directories it is given, with
// their mapping (Linux 5.19), so the mapped copy of the tree is needed during the
// call of mount(2) alone. It is attached below the root meanwhile: before Linux
// 6.15 overlay does not take a directory of a tree that is attached nowhere.
func (r *rootfsStore) withLayers(ids idmap.Mapping, f func(dir *os.File) error) error {
	if ids.IsZero() {
		return f(r.mounts.layers)
	}
	ns, err := idmap.UserNamespace(ids)
	if err != nil {
		return err
	}
	defer ns.Close()
	tree, err := idmap.OpenTree(r.dirs.snapshots(), idmap.Attributes{UserNS: ns})
	if err != nil {
		return err
	}
	defer tree.Close()
	target, err := os.MkdirTemp(r.dirs.mapped(), "")
	if err != nil {
		return fmt.Errorf("make directory of mapped layers: %w", diskError(err))
	}
	defer removeMapped(target)
	crashpoint.Here("before mapped layers")
	if err := idmap.Attach(tree, target); err != nil {
		return err
	}
	crashpoint.Here("after mapped layers")
	dir, err := openDirFile(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir)
}

// removeMapped takes a mapped copy of the layers away. The directory is removed as
// an empty one only: what is still mounted there are the layers themselves.
func removeMapped(target string) {
	err := unmount(target)
	if err == nil {
		err = unix.Rmdir(target)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		klog.ErrorS(err, "Failed to remove mapped layers; they stay mounted until the next start", "target", target)
	}
}

// removeMappedLayers takes away what a killed process left attached.
func removeMappedLayers(dirs layout) error {
	entries, err := os.ReadDir(dirs.mapped())
	if err != nil {
		return fmt.Errorf("list mapped layers: %w", err)
	}
	for _, e := range entries {
		removeMapped(filepath.Join(dirs.mapped(), e.Name()))
	}
	return nil
}

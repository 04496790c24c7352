package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RootfsOnDisk names the root file systems below the root of a store, as
// RootfsKeys does, without opening the store. It only reads. A root that does not
// exist has none.
func RootfsOnDisk(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "rootfs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list rootfs directories: %w", err)
	}
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		keys = append(keys, e.Name())
	}
	return keys, nil
}

// RemoveRootfs removes a root file system that is mounted nowhere from a store
// that no process has open; the caller sees to both. The next Open lets go of the
// layers that it stood on.
func RemoveRootfs(root, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := removeTree(filepath.Join(root, "rootfs", key)); err != nil {
		return fmt.Errorf("remove rootfs %s: %w", key, err)
	}
	return nil
}

// CheckRoot finds out by a trial mount whether the file system of a directory, which
// exists, can carry the root file systems of containers. It leaves nothing.
func CheckRoot(dir string) error {
	probe, err := os.MkdirTemp(dir, ".overlay-")
	if err != nil {
		return fmt.Errorf("probe overlay mounts: %w", err)
	}
	defer os.RemoveAll(probe)
	layers := filepath.Join(probe, "overlayfs")
	for _, d := range []string{layers, filepath.Join(probe, "empty"), filepath.Join(probe, "trash")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return fmt.Errorf("probe overlay mounts: %w", err)
		}
	}
	m, err := newMounter(probe, layers)
	if err != nil {
		return err
	}
	m.close()
	return nil
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// disk is what the daemon's --root takes; 0 where that is not known.
func (t *target) disk() (int64, error) {
	if t.root == "" {
		return 0, nil
	}
	n, err := diskUse(t.root)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", t.root, err)
	}
	return n, nil
}

// diskUse sums the blocks of a tree, in bytes, as far as it lies on one file system.
// What is removed meanwhile counts nothing.
func diskUse(root string) (int64, error) {
	var total int64
	var dev uint64
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		var fi os.FileInfo
		if err == nil {
			fi, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) && path != root {
			return nil
		}
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		if path == root {
			dev = st.Dev
		}
		if st.Dev != dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		total += st.Blocks * 512
		return nil
	})
	return total, err
}

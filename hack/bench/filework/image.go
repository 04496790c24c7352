package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxImageFiles is enough for a median, and few enough for a large image.
const maxImageFiles = 2000

// imageFiles looks at files that the container has not changed.
func imageFiles() ([]row, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	paths, err := find("/", mountPoints(mounts))
	if err != nil {
		return nil, fmt.Errorf("find files of the image: %w", err)
	}
	if len(paths) == 0 {
		return nil, errors.New("find files of the image: it has none")
	}
	var st unix.Stat_t
	look := func(i int) error { return unix.Lstat(paths[i], &st) }
	return each(len(paths), []step{
		{"stat a file of the image, first time", look},
		{"stat a file of the image, again", look},
		{"read a file of the image", func(i int) error { return read(paths[i], 0) }},
	})
}

// mountPoints are the fifth fields of mountinfo; proc_pid_mountinfo(5).
func mountPoints(mountinfo []byte) map[string]bool {
	points := map[string]bool{}
	for line := range bytes.Lines(mountinfo) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			points[f[4]] = true
		}
	}
	return points
}

// find lists regular files below root by reading directories alone: a file must not
// have been looked at before it is measured.
func find(root string, except map[string]bool) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != root && except[path] && d.IsDir():
			return fs.SkipDir
		case d.Type().IsRegular() && !except[path]:
			paths = append(paths, path)
		}
		if len(paths) == maxImageFiles {
			return fs.SkipAll
		}
		return nil
	})
	return paths, err
}

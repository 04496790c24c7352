package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// cgroupTops are the mount points of all hierarchies.
func cgroupTops() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	var tops []string
	for _, m := range mounts {
		tops = append(tops, m.Mountpoint)
	}
	return tops, nil
}

// makeCgroups makes the cgroup that is the kubelet's cgroupRoot: it wants to find
// one, in every hierarchy.
func makeCgroups(parent string) error {
	tops, err := cgroupTops()
	if err != nil {
		return err
	}
	for _, top := range tops {
		dir := filepath.Join(top, parent)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// A new cpuset of v1 has no CPUs, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(top, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), b, 0o644)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeCgroups removes the cgroups that a kubelet leaves on its node, which are
// the ones of its classes of pods. One of a pod among them is an error: the
// kubelet removes these itself, and can when nothing is in them.
func removeCgroups(parent string) error {
	tops, err := cgroupTops()
	if err != nil {
		return err
	}
	var errs []error
	for _, top := range tops {
		var dirs []string
		filepath.WalkDir(filepath.Join(top, parent), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			if name := filepath.Base(dir); strings.Contains(name, "pod") && !strings.HasPrefix(name, "kubepods") {
				errs = append(errs, fmt.Errorf("cgroup of a pod is left: %s", dir))
			} else if err := os.Remove(dir); err != nil {
				errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

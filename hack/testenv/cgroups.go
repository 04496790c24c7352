package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
)

// MakeCgroups makes the parent, in every hierarchy; otherwise the first pod does. A
// kubelet wants to find it.
func (l Layout) MakeCgroups() error {
	roots, err := cgroupRoots()
	if err != nil {
		return fmt.Errorf("make cgroups: %w", err)
	}
	for _, root := range roots {
		dir := filepath.Join(root, l.CgroupParent)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroups: %w", err)
		}
		// A new cpuset of v1 has no CPUs, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(root, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), b, 0o644)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("make cgroups: %w", err)
			}
		}
	}
	return nil
}

// RemoveCgroups removes the parent and what is below it, in every hierarchy.
func (l Layout) RemoveCgroups() error { return RemoveCgroups(l.CgroupParent) }

// RemoveCgroups removes a cgroup and what is below it, in every hierarchy.
func RemoveCgroups(parent string) error {
	dirs, err := Cgroups(parent)
	errs := []error{err}
	for _, d := range slices.Backward(dirs) {
		errs = append(errs, removeCgroup(d))
	}
	return errors.Join(errs...)
}

// Cgroups lists a cgroup and those below it, in every hierarchy, parents first.
func Cgroups(parent string) ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var dirs []string
	for _, root := range roots {
		filepath.WalkDir(filepath.Join(root, parent), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // gone meanwhile
		})
	}
	return dirs, nil
}

// removeCgroup retries for a second: a cgroup is busy until the last process in it
// has been reaped.
func removeCgroup(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
}

func cgroupRoots() ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if m.FSType == "cgroup" || m.FSType == "cgroup2" {
			out = append(out, m.Mountpoint)
		}
	}
	return out, nil
}

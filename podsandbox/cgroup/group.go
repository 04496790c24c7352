package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// Group is a pod's control group.
type Group struct {
	host *host
	place
}

// madeMark is the extended attribute of parents that Create made.
const madeMark = "trusted.cri-sandbox"

// Create makes the group of a pod below a parent, and the parent where it is
// missing, and sets the limits. A parent is what CRI calls cgroup_parent: a path,
// the name of a slice, or empty for one of our own. It is idempotent. After an
// error nothing of a new group is left.
func Create(parent, id string, limits Limits) (*Group, error) {
	return thisHost().create(parent, id, limits)
}

// Load finds the group that an earlier Create made. When none of it is there it
// returns errdefs.ErrNotFound; what an interrupted Create or Delete left is
// found, so that it can be deleted.
func Load(parent, id string) (*Group, error) {
	return thisHost().load(parent, id)
}

func (h *host) create(parent, id string, limits Limits) (*Group, error) {
	if h.version == 0 {
		return nil, fmt.Errorf("create cgroup of pod %s: no control groups are mounted: %w", id, errdefs.ErrFailedPrecondition)
	}
	p, err := locate(parent, id)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, place: p}
	cu := cleanup.Cleanup{}
	if !g.exists() {
		cu = cleanup.Make(g.discard)
	}
	defer cu.Clean()
	crashpoint.Here("before cgroup make")
	for _, m := range h.mounts {
		for try := 0; ; try++ {
			// Delete of another pod may take a parent away between two steps.
			if err = h.makeDirectories(m, g.path); err == nil {
				break
			}
			if !isGone(err) || try == 20 {
				return nil, fmt.Errorf("create cgroup %s: %w", g.path, err)
			}
		}
	}
	crashpoint.Here("before cgroup limits")
	if err := g.Update(limits); err != nil {
		return nil, err
	}
	crashpoint.Here("after cgroup make")
	cu.Release()
	return g, nil
}

func (h *host) load(parent, id string) (*Group, error) {
	p, err := locate(parent, id)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, place: p}
	if !g.exists() {
		return nil, fmt.Errorf("cgroup %s: %w", g.path, errdefs.ErrNotFound)
	}
	return g, nil
}

// Paths returns the absolute directories that the pod's processes have to be born
// in: on v1 one for each hierarchy, on v2 exactly one.
func (g *Group) Paths() []string {
	paths := make([]string, 0, len(g.host.mounts))
	for _, m := range g.host.mounts {
		paths = append(paths, filepath.Join(m.dir, g.path))
	}
	return paths
}

// dir returns the directory that has a controller's files, or "" when the node has
// not mounted it.
func (g *Group) dir(controller string) string {
	for _, m := range g.host.mounts {
		if m.has(controller) {
			return filepath.Join(m.dir, g.path)
		}
	}
	return ""
}

func (g *Group) exists() bool {
	for _, dir := range g.Paths() {
		if _, err := os.Lstat(dir); err == nil {
			return true
		}
	}
	return false
}

// makeDirectories makes each directory on the way to a group in one hierarchy, and
// makes it fit to hold processes.
func (h *host) makeDirectories(m mount, group string) error {
	dir := m.dir
	parts := strings.Split(strings.Trim(group, "/"), "/")
	for i, part := range parts {
		parent := dir
		dir = filepath.Join(parent, part)
		if h.version == 2 {
			enableControllers(parent)
		}
		err := unix.Mkdir(dir, 0o755)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		if err == nil && i < len(parts)-1 {
			// Without the mark, an empty parent stays: no harm.
			_ = unix.Setxattr(dir, madeMark, []byte("1"), 0)
		}
		if h.version == 1 && m.has("cpuset") {
			if err := inheritCpuset(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// inheritCpuset fills the empty cpuset of a new v1 directory from its parent's; no
// process can join before.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(own)) > 0 {
			continue
		}
		from, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), string(bytes.TrimSpace(from))); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers hands the controllers that limits and counts need to the
// children of a v2 directory. One that cannot be enabled is noticed when a limit
// needs its file.
func enableControllers(dir string) {
	available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	enabled, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	have := strings.Fields(string(enabled))
	for _, name := range strings.Fields(string(available)) {
		switch name {
		case "cpu", "cpuset", "io", "memory", "pids", "hugetlb":
			if !slices.Contains(have, name) {
				_ = writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+name)
			}
		}
	}
}

// writeFile sets a control file. It does not create: a file that is not there
// belongs to a controller that is not.
// isGone tells that a group was removed: before its file was opened, or after.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

func writeFile(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

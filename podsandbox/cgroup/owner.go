package cgroup

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ownerMark is the extended attribute that says whose a group is.
const ownerMark = "trusted.cri-sandbox.owner"

// SetOwner notes who made the group, so that FindOwned finds it when nothing else
// knows of it any more. An owner is any text of up to 255 bytes. Kernels that keep
// no attributes on control groups (before Linux 5.7 on v2) find nothing later,
// which is no error.
func (g *Group) SetOwner(owner string) {
	for _, dir := range g.Paths() {
		_ = unix.Setxattr(dir, ownerMark, []byte(owner), 0)
	}
}

// Path is where the group lies in every hierarchy.
func (g *Group) Path() string { return g.path }

// Owned is a group that FindOwned found.
type Owned struct {
	*Group
	ID string // as it was given to Create
}

// FindOwned lists the groups of an owner in all hierarchies, each once.
func FindOwned(owner string) []Owned {
	h := thisHost()
	seen := map[string]bool{}
	var found []Owned
	for _, m := range h.mounts {
		_ = filepath.WalkDir(m.dir, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // what is gone meanwhile is no group
			}
			rel := strings.TrimPrefix(dir, m.dir)
			if seen[rel] || ownerOf(dir) != owner {
				return nil
			}
			seen[rel] = true
			id := strings.TrimSuffix(strings.TrimPrefix(path.Base(rel), "cri-sandbox-"), ".scope")
			if g, err := h.load(path.Dir(rel), id); err == nil && g.path == rel {
				found = append(found, Owned{Group: g, ID: id})
			}
			return filepath.SkipDir
		})
	}
	return found
}

func ownerOf(dir string) string {
	var value [256]byte
	n, err := unix.Getxattr(dir, ownerMark, value[:])
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// Controllers names the controllers that pods' groups can use on this node.
func Controllers() []string {
	h := thisHost()
	var names []string
	for _, m := range h.mounts {
		if m.controllers == nil {
			return readWords(filepath.Join(m.dir, "cgroup.controllers"))
		}
		names = append(names, m.controllers...)
	}
	return names
}

func readWords(file string) []string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}

package cgroup

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// defaultParent is where pods without a parent go.
const defaultParent = "/cri-sandbox"

// place is where a pod's group lies in every hierarchy.
type place struct {
	path  string // absolute, below a mount
	slice string // the systemd unit of the parent, and
	scope string // of the group; empty for a plain directory
}

// locate turns what the kubelet sends into a place.
func locate(parent, id string) (place, error) {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return place{}, fmt.Errorf("cgroup of pod %q: %w", id, errdefs.ErrInvalidArgument)
	}
	if parent == "" {
		parent = defaultParent
	}
	if strings.ContainsRune(parent, 0) || strings.Contains("/"+parent+"/", "/../") {
		return place{}, fmt.Errorf("cgroup parent %q: %w", parent, errdefs.ErrInvalidArgument)
	}
	parent = path.Clean("/" + parent)
	if !strings.HasSuffix(parent, ".slice") {
		return place{path: path.Join(parent, id)}, nil
	}
	slice := path.Base(parent)
	expanded, err := expandSlice(slice)
	if err != nil {
		return place{}, err
	}
	// A path to a slice has to be the slice's own.
	if dir := path.Dir(parent); dir != "/" && parent != expanded {
		return place{}, fmt.Errorf("cgroup parent %s is not at %s: %w", parent, expanded, errdefs.ErrInvalidArgument)
	}
	scope := "cri-sandbox-" + id + ".scope"
	return place{path: path.Join(expanded, scope), slice: slice, scope: scope}, nil
}

// expandSlice returns the directory of a slice: each dash in its name is a level of
// its own, and "-.slice" is the root (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name := strings.TrimSuffix(slice, ".slice")
	if name == "-" {
		return "/", nil
	}
	var directory, prefix string
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("cgroup parent %q: empty part in the slice's name: %w", slice, errdefs.ErrInvalidArgument)
		}
		prefix += part
		directory += "/" + prefix + ".slice"
		prefix += "-"
	}
	return directory, nil
}

package leftovers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
)

// id is the form of the ids of pods and containers.
var id = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c Config) processes() ([]Leftover, error) {
	pods := map[string]bool{}
	for _, g := range cgroup.FindOwned(c.Paths.CgroupOwner()) {
		pods[g.ID] = true
	}
	var all []Leftover
	for _, engine := range c.Engines {
		found, err := engine.Find(c.Paths.Pods(), pods)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			all = append(all, Leftover{Kind: Process, Pod: p.Sandbox, What: fmt.Sprintf("%d, %s", p.PID, p.Role), remove: p.Kill})
		}
	}
	return all, nil
}

func (c Config) attachments() ([]Leftover, error) {
	ids, err := c.CNI.Stale(nil)
	if err != nil {
		return nil, err
	}
	var all []Leftover
	for _, pod := range ids {
		all = append(all, Leftover{Kind: Attachment, Pod: pod, What: pod, remove: func(ctx context.Context) error {
			return c.CNI.Detach(ctx, network.Pod{ID: pod})
		}})
	}
	return all, nil
}

// leases without an attachment: of those with one, the attachment is told.
func (c Config) leases() ([]Leftover, error) {
	leases, err := c.CNI.Leases()
	if err != nil {
		return nil, err
	}
	attached, err := c.CNI.Stale(nil)
	if err != nil {
		return nil, err
	}
	var all []Leftover
	for _, lease := range leases {
		if slices.Contains(attached, lease.PodID) {
			continue // goes with the attachment
		}
		all = append(all, Leftover{Kind: Lease, Pod: lease.PodID, What: lease.Address.String(), remove: func(ctx context.Context) error {
			return c.CNI.Release(ctx, lease)
		}})
	}
	return all, nil
}

// mounts are those below the directories of pods.
func (c Config) mounts() ([]Leftover, error) {
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	// The kernel lists mounts without symbolic links in their paths.
	dir, err := filepath.EvalSymlinks(c.Paths.Pods())
	if err != nil {
		return nil, nil // no directory, no mounts in it
	}
	var all []Leftover
	for _, point := range slices.Backward(points) { // what is mounted on top first
		rel, below := strings.CutPrefix(point, dir+"/")
		parts := strings.Split(rel, "/")
		if !below || !id.MatchString(parts[0]) {
			continue
		}
		l := Leftover{Kind: Mount, Pod: parts[0], What: point, remove: func(context.Context) error { return unmount(point) }}
		if len(parts) > 1 && id.MatchString(parts[1]) {
			l.container = parts[1]
		}
		all = append(all, l)
	}
	return all, nil
}

func unmount(point string) error {
	err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}

func (c Config) layers() ([]Leftover, error) {
	store := filepath.Join(c.Paths.Root, "images")
	keys, err := image.RootfsOnDisk(store)
	if err != nil {
		return nil, err
	}
	var all []Leftover
	for _, key := range keys {
		all = append(all, Leftover{
			Kind: Layer, container: layout.ContainerOf(key), What: filepath.Join(store, "rootfs", key),
			remove: func(ctx context.Context) error {
				if c.RemoveLayer != nil {
					return c.RemoveLayer(ctx, key)
				}
				return image.RemoveRootfs(store, key)
			},
		})
	}
	return all, nil
}

func (c Config) namespaces() ([]Leftover, error) {
	var all []Leftover
	for _, name := range namesIn(c.Paths.Namespaces()) {
		path := filepath.Join(c.Paths.Namespaces(), name)
		all = append(all, Leftover{Kind: Namespace, Pod: name, What: path, remove: func(context.Context) error {
			return network.RemoveNamespace(path)
		}})
	}
	return all, nil
}

func (c Config) cgroups() ([]Leftover, error) {
	var all []Leftover
	for _, g := range cgroup.FindOwned(c.Paths.CgroupOwner()) {
		all = append(all, Leftover{Kind: Cgroup, Pod: g.ID, What: g.Path(), remove: g.Delete})
	}
	return all, nil
}

// directories are those of pods and, in them, of containers.
func (c Config) directories() ([]Leftover, error) {
	var all []Leftover
	for _, pod := range namesIn(c.Paths.Pods()) {
		dir := filepath.Join(c.Paths.Pods(), pod)
		for _, name := range namesIn(dir) {
			if id.MatchString(name) {
				all = append(all, directory(pod, name, filepath.Join(dir, name)))
			}
		}
		all = append(all, directory(pod, "", dir))
	}
	return all, nil
}

func directory(pod, container, dir string) Leftover {
	return Leftover{Kind: Directory, Pod: pod, container: container, What: dir, remove: func(context.Context) error {
		return removeDirectory(dir)
	}}
}

// removeDirectory never walks into what is mounted in the directory.
func removeDirectory(dir string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil // it is gone
	}
	for _, point := range points {
		if strings.HasPrefix(point, real+"/") {
			return fmt.Errorf("remove %s: %s is still mounted in it", dir, point)
		}
	}
	return os.RemoveAll(dir)
}

// namesIn lists a directory that may be absent; one that cannot be read holds
// nothing that could be removed.
func namesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// mountPoints lists what is mounted where, in the order of mounting.
func mountPoints() ([]string, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	points := make([]string, len(mounts))
	for i, m := range mounts {
		points[i] = m.Mountpoint
	}
	return points, nil
}

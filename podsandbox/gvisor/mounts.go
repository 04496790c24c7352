package gvisor

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// mountsOf are the mounts of a container at their places in its root file system, in
// their order, and what their destinations were, by their places.
func mountsOf(c engine.Container) (mounts []specs.Mount, asked map[string]string, err error) {
	if c.Spec == nil || c.Spec.Root == nil {
		return nil, nil, fmt.Errorf("spec has no root: %w", errdefs.ErrInvalidArgument)
	}
	mounts = slices.Clone(c.Spec.Mounts)
	if asked, err = placed(c.Spec.Root.Path, mounts); err != nil {
		return nil, nil, err
	}
	for i, m := range mounts {
		if _, ok := c.Writes.Memory[asked[m.Destination]]; ok && isBind(m) {
			mounts[i] = memoryPlace(m)
		}
	}
	mounts, err = translateMounts(mounts)
	return mounts, asked, err
}

// translateMounts rewrites the mounts that the Sentry would refuse or take for
// something else, and puts them into their order.
func translateMounts(in []specs.Mount) ([]specs.Mount, error) {
	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid", "noexec"}}
	cgroup := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec"}}
	var out []specs.Mount
	for _, m := range in {
		m.Options = slices.Clone(m.Options)
		switch {
		case m.Type == "cgroup" || m.Type == "cgroup2":
			cgroup.Options = m.Options
			continue
		case sentrysOwn(m) && m.Destination == "/sys":
			sys = m
			continue
		case m.Type == "tmpfs" && path.Base(m.Source) == engine.PodSharedMemory:
			if err := checkShm(&m); err != nil {
				return nil, err
			}
		case isBind(m):
			// A mount made in a container is never seen outside of the sandbox,
			// whatever is asked; with these, the gofer does not start.
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "rshared" || o == "shared" })
			readOnlyBelow(&m)
		}
		out = append(out, m)
	}
	// Without a cgroup mount a container has no cgroup, and its use is guessed. It
	// may be covered; so may be what it is mounted on.
	return arrange(append(out, sys, cgroup))
}

// checkShm makes a mount the pod's shared memory. Its size is set at boot, before
// any container is known.
func checkShm(m *specs.Mount) error {
	m.Source = podShmPath
	for _, o := range m.Options {
		if size, ok := strings.CutPrefix(o, "size="); ok && size != defaultShmSize && size != "64m" && size != "67108864" {
			return fmt.Errorf("shared memory of size %s: a sandbox has 64 MiB: %w", size, errdefs.ErrInvalidArgument)
		}
	}
	// These belong to the one tmpfs behind it.
	m.Options = slices.DeleteFunc(m.Options, func(o string) bool {
		return strings.HasPrefix(o, "size=") || strings.HasPrefix(o, "mode=")
	})
	return nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

const imageMountType = "erofs"

// isGoferMount reports whether a mount is served by a gofer. All but those and
// images are file systems of the Sentry itself.
func isGoferMount(m specs.Mount) bool { return isBind(m) && m.Source != "" }

// fromOutside reports whether a mount comes from outside of the sandbox.
func fromOutside(m specs.Mount) bool { return m.Type == imageMountType || isGoferMount(m) }

// serveAll says how the root and the mounts are served, and by whom.
func (p *preparedSpec) serveAll() {
	access := "rw"
	if p.spec.Root.Readonly {
		access = "ro"
	}
	root := specs.Mount{Destination: "/", Type: "bind", Source: p.spec.Root.Path, Options: []string{"bind", access, "rprivate"}}
	for _, m := range append([]specs.Mount{root}, p.spec.Mounts...) {
		conf := mountConf{Lower: lowerLisafs}
		switch layer, ok := p.layers[m.Destination]; {
		case m.Type == imageMountType:
			conf.Lower = lowerErofs
		case !isGoferMount(m):
			continue
		case ok:
			conf.Upper, conf.Size = upperOf(layer)
		}
		p.confs = append(p.confs, conf)
		if conf.Lower == lowerLisafs {
			p.serve(m, conf, p.below[m.Destination])
		}
	}
}

// upperOf is a layer in the Sentry's words. It is a tmpfs there, and that has more
// options than a size: all go where the size goes.
func upperOf(l engine.Layer) (upper int, size string) {
	upper = upperMemory
	if l.File != "" {
		upper = upperFile
	}
	// Without numbers there is nothing that a container could be told of free space.
	return upper, fmt.Sprintf("%d,nr_inodes=%d", orMost(l.Bytes), orMost(l.Inodes))
}

func orMost(n uint64) uint64 {
	if n == 0 || n > math.MaxInt64 {
		return math.MaxInt64
	}
	return n
}

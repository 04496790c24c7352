package gvisor

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// preparedSpec is a container's spec in the form that gofer and Sentry obey.
type preparedSpec struct {
	spec     *specs.Spec
	settings settings // of the sandbox
	// confs says how the root and each bind or image mount is served, in the
	// order of the spec; images are the files of the image mounts, in that order.
	confs   []mountConf
	images  []*os.File
	asked   int  // how many of confs are mounts that were asked for
	sockets bool // that the host listens on may be connected to
	gated   bool // it cannot start without a gate
	// served are those that the gofer serves, the root first.
	served []served
	// below are paths inside of the sources of binds, by destination; see served.
	below map[string]string
	// emptyProcFiles are names in /proc that are masked.
	emptyProcFiles []string
	// layers are by destination, seed is what the root's begins with.
	layers map[string]engine.Layer
	seed   []engine.SeedEntry
	fifos  []string      // of the image
	ids    idmap.Mapping // of the pod
}

// prepareSpec rewrites an OCI spec. The Sentry ignores masked and readonly
// paths, resources, cgroup paths and sysctls, obeys annotations of its own that
// a pod must not set, and knows namespaces by names; what the spec means by these
// is expressed by mounts and namespaces that the Sentry knows. The caller's spec
// is not changed.
func (s *Sandbox) prepareSpec(ctx context.Context, c engine.Container) (*preparedSpec, error) {
	if c.Spec == nil || c.Spec.Process == nil || c.Spec.Root == nil || c.Spec.Root.Path == "" {
		return nil, fmt.Errorf("spec has no process or no root: %w", errdefs.ErrInvalidArgument)
	}
	spec := *c.Spec
	process := *c.Spec.Process
	process.ApparmorProfile, process.SelinuxLabel = "", "" // of the host's kernel, which the container does not run on
	spec.Process = &process
	spec.Hooks = nil // would be run by the gofer, on the host
	spec.Hostname = ""
	spec.Annotations = annotationsOf(c, s.cfg.ID)

	filter, err := fitSeccomp(linuxOf(c.Spec).Seccomp)
	if err != nil {
		return nil, err
	}
	mounts, asked, err := mountsOf(c)
	if err != nil {
		return nil, err
	}
	if err := checkACLs(mounts); err != nil {
		return nil, err
	}
	spec.Mounts = mounts
	p := &preparedSpec{
		spec: &spec, settings: s.settings, ids: s.cfg.IDs, gated: len(c.Writes.Memory) > 0, sockets: c.HostSockets, seed: c.Writes.Seed, fifos: c.Writes.FIFOs,
		layers: map[string]engine.Layer{}, below: map[string]string{},
	}
	if layer, ok := c.Writes.Layers["/"]; ok {
		p.layers["/"] = layer
	}
	for place, destination := range asked {
		if layer, ok := c.Writes.Layers[destination]; ok {
			p.layers[place] = layer
		}
	}
	for _, m := range mounts {
		if fromOutside(m) {
			p.asked++
		}
	}
	err = s.restrict(ctx, p, c.Spec)
	if err == nil {
		err = s.showInterfaces(p, c.Spec)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	if err := s.showControllers(p, c.Spec); err != nil {
		p.close()
		return nil, err
	}
	spec.Linux = &specs.Linux{Namespaces: namespacesOf(c.Spec), Devices: linuxOf(c.Spec).Devices, Seccomp: filter}
	p.serveAll()
	return p, nil
}

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

// close closes the images that were not handed on.
func (p *preparedSpec) close() {
	for _, f := range p.images {
		f.Close()
	}
	p.images = nil
}

// annotationsOf drops the annotations that gVisor obeys, by which who sends them could
// choose another root file system or how it is shared and overlaid, and sets those that
// the gofer asks for.
func annotationsOf(c engine.Container, sandbox string) map[string]string {
	a := maps.Clone(c.Spec.Annotations)
	if a == nil {
		a = map[string]string{}
	}
	maps.DeleteFunc(a, func(k, _ string) bool {
		return strings.HasPrefix(k, "dev.gvisor.") || strings.HasPrefix(k, "io.kubernetes.cri-o.")
	})
	a["io.kubernetes.cri.container-type"] = "container"
	a["io.kubernetes.cri.sandbox-id"] = sandbox
	if a["io.kubernetes.cri.container-name"] == "" {
		a["io.kubernetes.cri.container-name"] = c.ID
	}
	return a
}

// namespacesOf translates the pid namespace. To the Sentry a container without an
// entry is in its root pid namespace, with the root container as its first process;
// an entry is a new namespace, unless its path is that of a container which is known
// by then. Network, ipc and uts are the pod's for all, and mounts are a container's
// own.
func namespacesOf(spec *specs.Spec) []specs.LinuxNamespace {
	// Its own cgroup is what a container sees at /sys/fs/cgroup.
	out := []specs.LinuxNamespace{{Type: specs.CgroupNamespace}}
	if spec.Linux == nil {
		return out
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path != engine.PodPIDNamespace {
			out = append(out, ns)
		}
	}
	return out
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

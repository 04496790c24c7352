package gvisor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"

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

// translator rewrites the specs of one sandbox's containers into what gofer and Sentry
// obey. It owns what they show of the sandbox itself, each made or asked for at its first
// use: kinds of paths, images of /proc/sys and /sys/class, and files in Config.Dir. Two
// that make one of them at the same time make the same.
type translator struct {
	control  *controlPlane
	cfg      engine.Config
	settings settings

	usual    *procSysImages // the engine's, of sandboxes with the Sentry's own values
	procSys  procSysImages
	sysClass sysClassMount
	kinds    sync.Map // pathKind by path; see kindInSandbox
}

// close closes what was made.
func (t *translator) close() {
	t.procSys.close()
	t.sysClass.close()
}

// prepareSpec rewrites an OCI spec. The Sentry ignores masked and readonly
// paths, resources, cgroup paths and sysctls, obeys annotations of its own that
// a pod must not set, and knows namespaces by names; what the spec means by these
// is expressed by mounts and namespaces that the Sentry knows. The caller's spec
// is not changed.
func (t *translator) prepareSpec(ctx context.Context, c engine.Container) (*preparedSpec, error) {
	if c.Spec == nil || c.Spec.Process == nil || c.Spec.Root == nil || c.Spec.Root.Path == "" {
		return nil, fmt.Errorf("spec has no process or no root: %w", errdefs.ErrInvalidArgument)
	}
	spec := *c.Spec
	process := *c.Spec.Process
	process.ApparmorProfile, process.SelinuxLabel = "", "" // of the host's kernel, which the container does not run on
	spec.Process = &process
	spec.Hooks = nil // would be run by the gofer, on the host
	spec.Hostname = ""
	spec.Annotations = annotationsOf(c, t.cfg.ID)

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
		spec: &spec, settings: t.settings, ids: t.cfg.IDs, gated: len(c.Writes.Memory) > 0, sockets: c.HostSockets, seed: c.Writes.Seed, fifos: c.Writes.FIFOs,
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
	err = t.restrict(ctx, p, c.Spec)
	if err == nil {
		err = t.showInterfaces(p, c.Spec)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	if err := t.showControllers(p, c.Spec); err != nil {
		p.close()
		return nil, err
	}
	spec.Linux = &specs.Linux{Namespaces: namespacesOf(c.Spec), Devices: linuxOf(c.Spec).Devices, Seccomp: filter}
	p.serveAll()
	return p, nil
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

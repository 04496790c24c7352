package spec

import (
	"cmp"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// defaultMounts returns what every container has. /sys/fs/cgroup is the engine's.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: engine.PodSharedMemory, Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
}

// mounts returns all mounts, parents before children. At one destination the
// request wins over everything, and the defaults over the image's volumes. Of those of
// the same depth the request's come last, in its order: one of them may lead to the
// place of another through a link, and the later one is seen.
func mounts(in Input) []specs.Mount {
	requested := in.Mounts
	if requested == nil {
		requested = in.Container.GetMounts()
	}
	taken := map[string]bool{}
	for _, m := range requested {
		taken[path.Clean(m.GetContainerPath())] = true
	}
	var all []specs.Mount
	put := func(m specs.Mount) {
		if !taken[m.Destination] {
			taken[m.Destination] = true
			all = append(all, m)
		}
	}
	for _, m := range defaultMounts() {
		put(m)
	}
	access := "rw"
	if in.security().GetReadonlyRootfs() {
		access = "ro" // these files stand in for files of the image
	}
	for _, dst := range sortedKeys(in.Files) {
		b := bind(in.Files[dst], dst, access)
		ids := IDs(in.Pod)
		b.UIDMappings, b.GIDMappings = ids.UIDs, ids.GIDs
		put(b)
	}
	for _, dst := range sortedKeys(in.Volumes) {
		put(bind(in.Volumes[dst], path.Clean(dst), "rw"))
	}
	for _, m := range requested {
		all = append(all, requestMount(m))
	}

	slices.SortStableFunc(all, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	return all
}

// requestMount turns a mount of the request into a bind. The image of a volume is
// mounted by the caller, for reading only and under the pod's ids.
func requestMount(m *runtimeapi.Mount) specs.Mount {
	access, propagation := "rw", "rprivate"
	switch {
	case m.GetRecursiveReadOnly():
		access = "rro"
	case m.GetReadonly(), m.GetImage() != nil:
		access = "ro"
	}
	if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER {
		propagation = "rslave"
	}
	b := bind(m.GetHostPath(), path.Clean(m.GetContainerPath()), access)
	b.Options = []string{"rbind", access, propagation}
	if m.GetImage() != nil {
		b.Options = append(b.Options, "nosuid", "nodev") // programs may run from there, without more rights
	} else {
		b.UIDMappings, b.GIDMappings = ociMapping(m.GetUidMappings()), ociMapping(m.GetGidMappings())
	}
	for _, o := range m.GetMountOptions() {
		if !slices.Contains(b.Options, o) {
			b.Options = append(b.Options, o)
		}
	}
	return b
}

func bind(source, destination, access string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", access, "rprivate"}}
}

func depth(p string) int { return strings.Count(p, "/") }

// ImageVolumes lists the destinations, clean and in order, at which the container is
// to have a directory that it can write to, with what the image has there: in its root
// file system, or as a mount in Input.Volumes. A mount of the request takes a
// volume's place.
// At or below what every container has mounted, an image gets none.
func ImageVolumes(image ocispec.ImageConfig, requested []*runtimeapi.Mount) []string {
	var dsts []string
	for v := range image.Volumes {
		dst := path.Join("/", v)
		covered := slices.ContainsFunc(requested, func(m *runtimeapi.Mount) bool { return path.Clean(m.GetContainerPath()) == dst })
		if dst != "/" && !strings.ContainsRune(dst, 0) && !covered && !BelowDefaultMounts(dst) {
			dsts = append(dsts, dst)
		}
	}
	slices.Sort(dsts)
	return slices.Compact(dsts)
}

// BelowDefaultMounts reports whether a clean absolute path is at or below /proc, /sys or
// /dev, which every container has mounted.
func BelowDefaultMounts(dst string) bool {
	first, _, _ := strings.Cut(dst[1:], "/")
	return first == "proc" || first == "sys" || first == "dev"
}

package spec

import (
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func find(mounts []specs.Mount, dst string) []specs.Mount {
	return slices.DeleteFunc(slices.Clone(mounts), func(m specs.Mount) bool { return m.Destination != dst })
}

func TestMountsRequestWins(t *testing.T) {
	in := baseInput()
	in.Volumes = map[string]string{"/data": "/host/volume", "/proc": "/host/volume"}
	in.Container.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/dev/shm/", HostPath: "/host/shm"},
		{ContainerPath: "/etc/resolv.conf", HostPath: "/host/resolv", Readonly: true},
		{ContainerPath: "/data", HostPath: "/host/data"},
	}
	all := mounts(in)
	for dst, source := range map[string]string{
		"/dev/shm": "/host/shm", "/etc/resolv.conf": "/host/resolv", "/data": "/host/data",
		"/etc/hosts": "/run/state/hosts", "/proc": "proc",
	} {
		if got := find(all, dst); len(got) != 1 || got[0].Source != source {
			t.Errorf("%s: got %+v, want one mount of %s", dst, got, source)
		}
	}
}

func TestMountsPreparedSourcesAreUsed(t *testing.T) {
	in := baseInput()
	in.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/resolved"}}
	if got := find(mounts(in), "/x"); len(got) != 1 || got[0].Source != "/resolved" {
		t.Errorf("got %+v", got)
	}
	in.Mounts = []*runtimeapi.Mount{}
	if got := find(mounts(in), "/dev/termination-log"); len(got) != 0 {
		t.Errorf("an empty list of prepared mounts was taken for none: %+v", got)
	}
}

func TestMountsParentsFirst(t *testing.T) {
	in := baseInput()
	in.Container.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/a/b/c", HostPath: "/1"}, {ContainerPath: "/a", HostPath: "/2"},
		{ContainerPath: "/dev/shm/x", HostPath: "/3"}, {ContainerPath: "/a/b", HostPath: "/4"},
	}
	all := mounts(in)
	for i, child := range all {
		for _, later := range all[i+1:] {
			if strings.HasPrefix(child.Destination, later.Destination+"/") {
				t.Errorf("%s is mounted before its parent %s", child.Destination, later.Destination)
			}
		}
	}
	if find(all, "/sys/fs/cgroup") != nil && len(find(all, "/sys/fs/cgroup")) > 0 {
		t.Error("/sys/fs/cgroup is the engine's to add")
	}
}

// Of what may meet at one place through a link, the request's comes last, in its order.
func TestMountsOfOneDepthKeepTheirOrder(t *testing.T) {
	in := baseInput()
	in.Volumes = map[string]string{"/z": "/host/volume"}
	in.Container.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/y/y", HostPath: "/1"}, {ContainerPath: "/y", HostPath: "/2"}, {ContainerPath: "/x", HostPath: "/3"}, {ContainerPath: "/a/y/", HostPath: "/4"},
	}
	var got []string
	for _, m := range mounts(in) {
		if m.Type == "bind" {
			got = append(got, m.Destination)
		}
	}
	order := []string{"/z", "/y", "/x", "/etc/hosts", "/y/y", "/a/y"}
	at := func(d string) int { return slices.Index(got, d) }
	for i := range order[1:] {
		if at(order[i]) < 0 || at(order[i]) > at(order[i+1]) {
			t.Fatalf("%v, want the order %v", got, order)
		}
	}
}

func TestMountsOfAReadonlyRootAreReadonly(t *testing.T) {
	in := baseInput()
	in.Container.Linux.SecurityContext.ReadonlyRootfs = true
	all := mounts(in)
	for dst, access := range map[string]string{"/etc/resolv.conf": "ro", "/etc/hostname": "ro", "/data": "rw", "/dev/termination-log": "rw"} {
		if got := find(all, dst); len(got) != 1 || !slices.Contains(got[0].Options, access) {
			t.Errorf("%s: got %+v, want %s", dst, got, access)
		}
	}
}

func TestImageVolumes(t *testing.T) {
	image := ocispec.ImageConfig{Volumes: map[string]struct{}{
		"/data": {}, "/data/": {}, "rel": {}, "/covered": {}, "/": {}, "": {}, "/proc/x": {}, "/dev": {}, "/sys": {}, "/development": {}, "/../../b": {},
	}}
	got := ImageVolumes(image, []*runtimeapi.Mount{{ContainerPath: "/covered/"}})
	if want := []string{"/b", "/data", "/development", "/rel"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

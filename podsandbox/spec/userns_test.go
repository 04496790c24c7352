package spec

import (
	"math"
	"reflect"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ranges(r ...[3]uint32) []*runtimeapi.IDMapping {
	var out []*runtimeapi.IDMapping
	for _, one := range r {
		out = append(out, &runtimeapi.IDMapping{ContainerId: one[0], HostId: one[1], Length: one[2]})
	}
	return out
}

// kubeletRange is of the kind that the kubelet gives to a pod.
var kubeletRange = [3]uint32{0, 131072, 65536}

func mappedPod(uids, gids []*runtimeapi.IDMapping) *runtimeapi.PodSandboxConfig {
	p := basePod()
	p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{
		Mode: runtimeapi.NamespaceMode_POD, Uids: uids, Gids: gids,
	}
	return p
}

func TestValidateUserNamespace(t *testing.T) {
	good := ranges(kubeletRange)
	for name, tc := range map[string]struct {
		uids, gids []*runtimeapi.IDMapping
		want       want
	}{
		"kubelet's":       {good, good, want{}},
		"none":            {nil, nil, bad("one of each")},
		"users alone":     {good, nil, bad("one of each")},
		"two ranges":      {ranges(kubeletRange, [3]uint32{65536, 300000, 1}), good, bad("one of each")},
		"different":       {good, ranges([3]uint32{0, 131072, 65535}), bad("differently")},
		"root not mapped": {ranges([3]uint32{1, 1000, 9}), ranges([3]uint32{1, 1000, 9}), bad("id 0")},
		"host's root":     {ranges([3]uint32{0, 0, 9}), ranges([3]uint32{0, 0, 9}), bad("host's root")},
		"empty":           {ranges([3]uint32{0, 1000, 0}), ranges([3]uint32{0, 1000, 0}), bad("empty")},
		"too far":         {ranges([3]uint32{0, 1000, math.MaxUint32 - 999}), good, bad("beyond")},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, ValidatePod(mappedPod(tc.uids, tc.gids))) })
	}
	onHost := mappedPod(good, good)
	onHost.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	onHost.Linux.Sysctls = nil
	anEngines.check(t, ValidatePod(onHost))
}

func TestValidateContainerSharesTheUserNamespace(t *testing.T) {
	good, other := ranges(kubeletRange), ranges([3]uint32{0, 200000, 65536})
	with := mappedPod(good, good)
	const pod, node = runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE
	for name, tc := range map[string]struct {
		pod  *runtimeapi.PodSandboxConfig
		ask  *runtimeapi.UserNamespace
		want want
	}{
		"the pod's":        {with, &runtimeapi.UserNamespace{Mode: pod, Uids: good, Gids: good}, want{}},
		"nothing":          {with, nil, want{}},
		"other ids":        {with, &runtimeapi.UserNamespace{Mode: pod, Uids: other, Gids: other}, bad("another")},
		"the host's":       {with, &runtimeapi.UserNamespace{Mode: node}, bad("another")},
		"pod without":      {basePod(), &runtimeapi.UserNamespace{Mode: pod, Uids: good, Gids: good}, bad("another")},
		"pod without, too": {basePod(), &runtimeapi.UserNamespace{Mode: node}, want{}},
	} {
		t.Run(name, func(t *testing.T) {
			c := baseContainer()
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = tc.ask
			tc.want.check(t, ValidateContainer(c, tc.pod))
		})
	}
}

func TestValidateMappedMounts(t *testing.T) {
	good, other := ranges(kubeletRange), ranges([3]uint32{0, 200000, 65536})
	image := &runtimeapi.ImageSpec{Image: "i"}
	for name, tc := range map[string]struct {
		mount *runtimeapi.Mount
		want  want
	}{
		"directory":                {&runtimeapi.Mount{HostPath: "/a", UidMappings: good, GidMappings: good}, want{}},
		"other than the pod's":     {&runtimeapi.Mount{HostPath: "/a", UidMappings: other, GidMappings: other}, want{}},
		"users alone":              {&runtimeapi.Mount{HostPath: "/a", UidMappings: good}, bad("alone")},
		"empty range":              {&runtimeapi.Mount{HostPath: "/a", UidMappings: ranges([3]uint32{}), GidMappings: good}, bad("empty")},
		"image":                    {&runtimeapi.Mount{Readonly: true, Image: image, UidMappings: good, GidMappings: good}, want{}},
		"image, other":             {&runtimeapi.Mount{Readonly: true, Image: image, UidMappings: other, GidMappings: other}, bad("other id mappings")},
		"image without name":       {&runtimeapi.Mount{Image: &runtimeapi.ImageSpec{}}, bad("without a name")},
		"image, sub-path":          {&runtimeapi.Mount{Readonly: true, Image: image, ImageSubPath: "a/b..c/d"}, want{}},
		"image to write to":        {&runtimeapi.Mount{Image: image}, bad("readonly")},
		"image, absolute sub-path": {&runtimeapi.Mount{Readonly: true, Image: image, ImageSubPath: "/a"}, bad("relative")},
		"image, climbing sub-path": {&runtimeapi.Mount{Readonly: true, Image: image, ImageSubPath: "a/../../b"}, bad("relative")},
		"image, NUL in sub-path":   {&runtimeapi.Mount{Readonly: true, Image: image, ImageSubPath: "a\x00b"}, bad("control")},
	} {
		t.Run(name, func(t *testing.T) {
			c := baseContainer()
			tc.mount.ContainerPath = "/vol"
			c.Mounts = []*runtimeapi.Mount{tc.mount}
			tc.want.check(t, ValidateContainer(c, mappedPod(good, good)))
		})
	}
}

func TestContainerInAUserNamespace(t *testing.T) {
	in := baseInput()
	in.Pod = mappedPod(ranges(kubeletRange), ranges(kubeletRange))
	in.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/vol", HostPath: "/a", UidMappings: ranges([3]uint32{0, 5, 6}), GidMappings: ranges([3]uint32{0, 7, 8})},
		{ContainerPath: "/image", HostPath: "/mounted", Image: &runtimeapi.ImageSpec{Image: "i"}, MountOptions: []string{"nosuid"}},
		{ContainerPath: "/deep", HostPath: "/b", Readonly: true, RecursiveReadOnly: true},
	}
	s, err := Container(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{{HostID: 131072, Size: 65536}}
	if !reflect.DeepEqual(s.Linux.UIDMappings, want) || !reflect.DeepEqual(s.Linux.GIDMappings, want) ||
		!slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		t.Errorf("got %+v", s.Linux)
	}
	for dst, uids := range map[string][]specs.LinuxIDMapping{
		"/etc/hosts": want, "/vol": {{HostID: 5, Size: 6}}, "/image": nil, "/deep": nil,
	} {
		if got := find(s.Mounts, dst); len(got) != 1 || !reflect.DeepEqual(got[0].UIDMappings, uids) {
			t.Errorf("%s: got %+v, want %v", dst, got, uids)
		}
	}
	if got := find(s.Mounts, "/image")[0].Options; !slices.Equal(got, []string{"rbind", "ro", "rprivate", "nosuid", "nodev"}) {
		t.Errorf("options of an image: %v", got)
	}
	if got := find(s.Mounts, "/deep")[0].Options; !slices.Contains(got, "rro") || slices.Contains(got, "ro") {
		t.Errorf("options of a recursively read-only mount: %v", got)
	}
}

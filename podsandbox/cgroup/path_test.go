package cgroup

import (
	"errors"
	"path"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

func TestLocate(t *testing.T) {
	const id = "abc"
	for _, tc := range []struct {
		parent string
		want   place
	}{
		{"", place{path: "/cri-sandbox/abc"}},
		{"/", place{path: "/abc"}},
		{"/kubepods/burstable/podX", place{path: "/kubepods/burstable/podX/abc"}},
		{"kubepods//podX/", place{path: "/kubepods/podX/abc"}},
		{"kubepods-burstable-podX.slice", place{
			path:  "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podX.slice/cri-sandbox-abc.scope",
			slice: "kubepods-burstable-podX.slice", scope: "cri-sandbox-abc.scope",
		}},
		{"/kubepods.slice/kubepods-podX.slice", place{
			path:  "/kubepods.slice/kubepods-podX.slice/cri-sandbox-abc.scope",
			slice: "kubepods-podX.slice", scope: "cri-sandbox-abc.scope",
		}},
		{"-.slice", place{path: "/cri-sandbox-abc.scope", slice: "-.slice", scope: "cri-sandbox-abc.scope"}},
		{"/machine.slice/directory", place{path: "/machine.slice/directory/abc"}},
	} {
		if got, err := locate(tc.parent, id); err != nil || got != tc.want {
			t.Errorf("locate(%q) = %+v, %v, want %+v", tc.parent, got, err, tc.want)
		}
	}
	for _, bad := range [][2]string{
		{"/a", ""}, {"/a", ".."}, {"/a", "."}, {"/a", "x/y"}, {"/a", "x\x00"},
		{"/a/../../b", id}, {"..", id}, {"/a\x00", id},
		{"a--b.slice", id}, {"-a.slice", id}, {"a-.slice", id}, {".slice", id},
		{"/wrong.slice/kubepods-podX.slice", id},
	} {
		if p, err := locate(bad[0], bad[1]); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("locate(%q, %q) = %+v, %v, want ErrInvalidArgument", bad[0], bad[1], p, err)
		}
	}
}

func FuzzLocate(f *testing.F) {
	f.Add("kubepods-burstable-podX.slice", "abc")
	f.Add("/kubepods/x", "abc")
	f.Fuzz(func(t *testing.T, parent, id string) {
		p, err := locate(parent, id)
		if err != nil {
			return
		}
		if again, err := locate(parent, id); err != nil || again != p {
			t.Errorf("second time: %+v, %v", again, err)
		}
		if p.path == "/" || path.Clean(p.path) != p.path || !path.IsAbs(p.path) {
			t.Errorf("locate(%q, %q) leads to %q", parent, id, p.path)
		}
	})
}

func TestHierarchies(t *testing.T) {
	const info = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /other/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	want := []mount{
		{"/sys/fs/cgroup/cpu,cpuacct", []string{"cpu", "cpuacct"}},
		{"/sys/fs/cgroup/memory", []string{"memory"}},
		{"/sys/fs/cgroup/systemd", []string{"systemd"}},
	}
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(info), mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hierarchies(mounts); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

package spec

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// changedBase is a spec as Container makes it.
func changedBase() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"a"}, Env: []string{"A=b"}},
		Mounts:  defaultMounts(),
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}}, Resources: &specs.LinuxResources{}},
	}
}

func TestNormalizeChanges(t *testing.T) {
	dir := t.TempDir()
	mount := func(m specs.Mount) func(*specs.Spec) { return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) } }
	limit := func(kind string, soft, hard uint64) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: kind, Soft: soft, Hard: hard}}
		}
	}
	for name, tc := range map[string]struct {
		change func(*specs.Spec)
		want   want
	}{
		"nothing":             {func(*specs.Spec) {}, want{}},
		"environment":         {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "B=c") }, want{}},
		"environment, broken": {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "=c") }, bad("=c")},
		"argument, broken":    {func(s *specs.Spec) { s.Process.Args = []string{"a\x00"} }, bad("NUL")},
		"bind":                {mount(specs.Mount{Destination: "/a/", Source: dir + "/.", Options: []string{"ro"}}), want{}},
		"tmpfs":               {mount(specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"}), want{}},
		"absent source":       {mount(specs.Mount{Destination: "/a", Type: "bind", Source: dir + "/no"}), want{errdefs.ErrFailedPrecondition, dir + "/no"}},
		"relative source":     {mount(specs.Mount{Destination: "/a", Type: "bind", Source: "x"}), bad("source of mount /a")},
		"mapped to the pod": {func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 7, Size: 8}}
			mount(specs.Mount{Destination: "/a", Source: dir, Options: []string{"bind", "ridmap"}})(s)
		}, want{}},
		"filter":          {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno} }, want{}},
		"filter, broken":  {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_MAYBE"} }, bad("SCMP_ACT_MAYBE")},
		"limit":           {limit("RLIMIT_NOFILE", 5, 5), want{}},
		"limit, unknown":  {limit("RLIMIT_MOODS", 5, 5), bad("RLIMIT_MOODS")},
		"limit, reversed": {limit("RLIMIT_NOFILE", 6, 5), bad("over its hard limit 5")},
		"over the image":  {mount(specs.Mount{Destination: "/", Source: dir}), bad("hide")},
		"relative":        {mount(specs.Mount{Destination: "a", Source: dir}), bad("absolute")},
	} {
		t.Run(name, func(t *testing.T) {
			s := changedBase()
			tc.change(s)
			tc.want.check(t, NormalizeChanges(changedBase(), s))
		})
	}
}

// What Container made is not judged: it has passed the checks of the request.
func TestNormalizeChangesKeepsItsOwn(t *testing.T) {
	make := func() *specs.Spec {
		s := changedBase()
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "erofs", Source: "/absent"})
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
		s.Linux.Sysctl = map[string]string{"a": "b"}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		return s
	}
	s := make()
	if err := NormalizeChanges(make(), s); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, make()) {
		t.Errorf("changed to %+v", s)
	}
}

func TestNormalizeChangesMakesBinds(t *testing.T) {
	s := changedBase()
	ids := []specs.LinuxIDMapping{{HostID: 7, Size: 8}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Mounts = []specs.Mount{{Destination: "/a", Source: "/etc/"}, {Destination: "/c", Source: "/etc", Options: []string{"bind", "idmap"}}, {Destination: "/b", Type: "none", Source: "/etc", Options: []string{"ro", "bind"}}}
	if err := NormalizeChanges(changedBase(), s); err != nil {
		t.Fatal(err)
	}
	want := []specs.Mount{
		{Destination: "/a", Type: "bind", Source: "/etc", Options: []string{"rbind"}},
		{Destination: "/c", Type: "bind", Source: "/etc", Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids},
		{Destination: "/b", Type: "bind", Source: "/etc", Options: []string{"ro", "bind"}},
	}
	if !reflect.DeepEqual(s.Mounts, want) {
		t.Errorf("mounts = %+v", s.Mounts)
	}
}

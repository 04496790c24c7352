package spec

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// foreignBase is a spec as Container makes it.
func foreignBase() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"a"}, Env: []string{"A=b"}},
		Mounts:  defaultMounts(),
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}}, Resources: &specs.LinuxResources{}},
	}
}

func TestAdoptForeign(t *testing.T) {
	dir := t.TempDir()
	device := func(path, kind string, major, minor int64) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor})
		}
	}
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
		"hook":                {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/h"}}} }, native("hook createRuntime /bin/h")},
		"I/O priority":        {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE} }, native("I/O priority")},
		"scheduler":           {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO} }, native("SCHED_FIFO")},
		"cgroup":              {func(s *specs.Spec) { s.Linux.CgroupsPath = "/x" }, native("cgroup /x")},
		"RDT":                 {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"} }, native("gold")},
		"memory policy":       {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind} }, native("memory policy")},
		"block I/O":           {func(s *specs.Spec) { s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{} }, native("block I/O")},
		"network device":      {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth9": {}} }, native("eth9")},
		"sysctl":              {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a.b": "1"} }, native("a.b")},
		"namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/n"})
		}, native("network namespace /n")},
		"own PID namespace":  {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, want{}},
		"host IPC namespace": {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, native("ipc namespace of the host")},
		"host PID namespace": {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" }, native("/proc/1/ns/pid")},
		"sandbox's device":   {device("/dev/fuse", "c", 10, 229), want{}},
		"host's device":      {device("/dev/kvm", "c", 10, 232), native("/dev/kvm (c 10:232)")},
		"block device":       {device("/dev/sda", "b", 1, 3), native("/dev/sda")},
		"pipe":               {device("/dev/p", "p", 0, 0), native("/dev/p")},
		"bind":               {mount(specs.Mount{Destination: "/a/", Source: dir + "/.", Options: []string{"ro"}}), want{}},
		"tmpfs":              {mount(specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"}), want{}},
		"overlay":            {mount(specs.Mount{Destination: "/a", Type: "overlay", Source: "x"}), native(`"overlay"`)},
		"absent source":      {mount(specs.Mount{Destination: "/a", Type: "bind", Source: dir + "/no"}), want{errdefs.ErrFailedPrecondition, dir + "/no"}},
		"relative source":    {mount(specs.Mount{Destination: "/a", Type: "bind", Source: "x"}), bad("source of mount /a")},
		"shared":             {mount(specs.Mount{Destination: "/a", Source: dir, Options: []string{"rbind", "rshared"}}), native("bidirectional")},
		"mapped":             {mount(specs.Mount{Destination: "/a", Source: dir, Options: []string{"bind", "idmap"}}), native("mapped")},
		"mapped to the pod": {func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 7, Size: 8}}
			mount(specs.Mount{Destination: "/a", Source: dir, Options: []string{"bind", "ridmap"}})(s)
		}, want{}},
		"filter":          {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno} }, want{}},
		"filter, broken":  {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_MAYBE"} }, bad("SCMP_ACT_MAYBE")},
		"limit":           {limit("RLIMIT_NOFILE", 5, 5), want{}},
		"limit, unknown":  {limit("RLIMIT_MOODS", 5, 5), bad("RLIMIT_MOODS")},
		"limit, reversed": {limit("RLIMIT_NOFILE", 6, 5), bad("over its hard limit 5")},
		"over /proc":      {mount(specs.Mount{Destination: "/proc/sys", Source: dir}), native("mount over /proc/sys")},
		"over the image":  {mount(specs.Mount{Destination: "/", Source: dir}), bad("hide")},
		"relative":        {mount(specs.Mount{Destination: "a", Source: dir}), bad("absolute")},
	} {
		t.Run(name, func(t *testing.T) {
			s := foreignBase()
			tc.change(s)
			tc.want.check(t, AdoptForeign(foreignBase(), s))
		})
	}
}

// What Container made is not judged: it has passed the checks of the request.
func TestAdoptForeignKeepsItsOwn(t *testing.T) {
	make := func() *specs.Spec {
		s := foreignBase()
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "erofs", Source: "/absent"})
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
		s.Linux.Sysctl = map[string]string{"a": "b"}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		return s
	}
	s := make()
	if err := AdoptForeign(make(), s); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, make()) {
		t.Errorf("changed to %+v", s)
	}
}

func TestAdoptForeignMakesBinds(t *testing.T) {
	s := foreignBase()
	ids := []specs.LinuxIDMapping{{HostID: 7, Size: 8}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Mounts = []specs.Mount{{Destination: "/a", Source: "/etc/"}, {Destination: "/c", Source: "/etc", Options: []string{"bind", "idmap"}}, {Destination: "/b", Type: "none", Source: "/etc", Options: []string{"ro", "bind"}}}
	if err := AdoptForeign(foreignBase(), s); err != nil {
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

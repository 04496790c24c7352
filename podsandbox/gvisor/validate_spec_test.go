package gvisor

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// acceptedSpec is one that nothing speaks against.
func acceptedSpec() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"a"}, Env: []string{"A=b"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/x", Type: "erofs", Source: "/absent"}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UserNamespace}},
			Resources:  &specs.LinuxResources{},
			Devices:    []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}},
			Sysctl:     map[string]string{"a": "b"},
			Seccomp:    &specs.LinuxSeccomp{DefaultAction: specs.ActLog},
		},
	}
}

func TestValidateSpec(t *testing.T) {
	device := func(path, kind string, major, minor int64) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor})
		}
	}
	mount := func(m specs.Mount) func(*specs.Spec) { return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) } }
	ok := finding{}
	for name, tc := range map[string]struct {
		change func(*specs.Spec)
		want   finding
	}{
		"nothing":        {func(*specs.Spec) {}, ok}, // what there was is not judged
		"environment":    {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "B=c") }, ok},
		"hook":           {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/h"}}} }, needsHost("hook createRuntime /bin/h")},
		"I/O priority":   {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE} }, needsHost("I/O priority")},
		"scheduler":      {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO} }, needsHost("SCHED_FIFO")},
		"cgroup":         {func(s *specs.Spec) { s.Linux.CgroupsPath = "/x" }, needsHost("cgroup /x")},
		"RDT":            {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"} }, needsHost("gold")},
		"memory policy":  {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind} }, needsHost("memory policy")},
		"block I/O":      {func(s *specs.Spec) { s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{} }, needsHost("block I/O")},
		"network device": {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth9": {}} }, needsHost("eth9")},
		"sysctl":         {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a.b": "1"} }, needsHost("a.b")},
		"namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/n"})
		}, needsHost("network namespace /n")},
		"own PID namespace":  {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, ok},
		"host IPC namespace": {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, needsHost("ipc namespace of the host")},
		"host PID namespace": {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/pid" }, needsHost("/proc/1/ns/pid")},
		"sandbox's device":   {device("/dev/fuse", "c", 10, 229), ok},
		"host's device":      {device("/dev/tty0", "c", 4, 0), needsHost("/dev/tty0 (c 4:0)")},
		"block device":       {device("/dev/sda", "b", 1, 3), needsHost("/dev/sda")},
		"pipe":               {device("/dev/p", "p", 0, 0), needsHost("/dev/p")},
		"device elsewhere":   {device("/etc/null", "c", 1, 3), needsHost("device node /etc/null outside of /dev")},
		"bind":               {mount(specs.Mount{Destination: "/a", Type: "bind", Source: "/srv", Options: []string{"rbind", "ro"}}), ok},
		"tmpfs":              {mount(specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"}), ok},
		"overlay":            {mount(specs.Mount{Destination: "/a", Type: "overlay", Source: "x"}), needsHost(`"overlay" at /a`)},
		"shared":             {mount(specs.Mount{Destination: "/a", Type: "bind", Source: "/srv", Options: []string{"rbind", "rshared"}}), needsHost("mount /a with bidirectional")},
		"mapped":             {mount(specs.Mount{Destination: "/a", Type: "bind", Source: "/srv", Options: []string{"bind", "idmap"}}), needsHost("mapped")},
		"over /proc":         {mount(specs.Mount{Destination: "/proc/sys", Type: "bind", Source: "/srv"}), needsHost("mount over /proc/sys")},
		"filter":             {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno} }, ok},
		"no filter":          {func(s *specs.Spec) { s.Linux.Seccomp = nil }, ok},
		"filter that logs": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActLog}}}
		}, needsHost("SCMP_ACT_LOG")},
	} {
		t.Run(name, func(t *testing.T) {
			after := acceptedSpec()
			tc.change(after)
			tc.want.check(t, (&Engine{}).ValidateSpec(acceptedSpec(), after))
		})
	}
}

// A spec that was made of a request is judged by what no request tells.
func TestValidateSpecOfARequest(t *testing.T) {
	made := &specs.Spec{Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}}, Linux: &specs.Linux{
		Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace}},
		Devices:    []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}},
		Seccomp:    &specs.LinuxSeccomp{DefaultAction: specs.ActKillThread},
	}}
	finding{}.check(t, (&Engine{}).ValidateSpec(nil, made))
	made.Linux.Devices = acceptedSpec().Linux.Devices
	needsHost("device /dev/kvm (c 10:232) of the host").check(t, (&Engine{}).ValidateSpec(nil, made))
	made.Linux.Devices, made.Linux.Seccomp = nil, acceptedSpec().Linux.Seccomp
	needsHost("seccomp action SCMP_ACT_LOG").check(t, (&Engine{}).ValidateSpec(nil, made))
}

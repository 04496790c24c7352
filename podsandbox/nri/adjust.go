package nri

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// adjust changes s as plugins wish, but for the environment, and returns what they wish for resources. It
// writes down also what a sandbox cannot give, which its engine refuses. The
// library has merged the wishes of all plugins; a name with the mark of removal
// takes away what was there before, and may stand beside its replacement.
func adjust(s *specs.Spec, a *api.ContainerAdjustment, inject injector) (*runtimeapi.LinuxContainerResources, error) {
	if a == nil {
		return nil, nil
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	adjustMap(s.Annotations, a.GetAnnotations())
	adjustProcess(s.Process, a)
	adjustHooks(s, a.GetHooks())
	var devices []string
	for _, d := range a.GetCDIDevices() {
		devices = append(devices, d.GetName())
	}
	if err := inject(s, devices); err != nil {
		return nil, err
	}
	adjustLinux(s, a.GetLinux())
	adjustMounts(s, a.GetMounts())

	change, err := resources(a.GetLinux().GetResources())
	if err != nil {
		return nil, err
	}
	if score := a.GetLinux().GetOomScoreAdj(); score != nil {
		if change == nil {
			change = &runtimeapi.LinuxContainerResources{}
		}
		change.OomScoreAdj = score.GetValue()
	}
	return change, nil
}

// adjustMap sets and removes; removals come first.
func adjustMap(m, wish map[string]string) {
	for name := range wish {
		if key, marked := api.IsMarkedForRemoval(name); marked {
			delete(m, key)
		}
	}
	for name, value := range wish {
		if _, marked := api.IsMarkedForRemoval(name); !marked {
			m[name] = value
		}
	}
}

func adjustProcess(p *specs.Process, a *api.ContainerAdjustment) {
	if len(a.GetArgs()) > 0 {
		p.Args = slices.Clone(a.GetArgs())
	}
	for _, l := range a.GetRlimits() {
		p.Rlimits = slices.DeleteFunc(p.Rlimits, func(o specs.POSIXRlimit) bool { return o.Type == l.GetType() })
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: l.GetType(), Hard: l.GetHard(), Soft: l.GetSoft()})
	}
	if prio := a.GetLinux().GetIoPriority(); prio != nil {
		p.IOPriority = prio.ToOCI()
	}
	if sched := a.GetLinux().GetScheduler(); sched != nil {
		p.Scheduler = sched.ToOCI()
	}
}

func adjustHooks(s *specs.Spec, h *api.Hooks) {
	if h.Hooks() == nil {
		return
	}
	oci := func(hooks []*api.Hook) (out []specs.Hook) {
		for _, hook := range hooks {
			out = append(out, hook.ToOCI())
		}
		return out
	}
	s.Hooks = &specs.Hooks{
		Prestart: oci(h.GetPrestart()), CreateRuntime: oci(h.GetCreateRuntime()), CreateContainer: oci(h.GetCreateContainer()),
		StartContainer: oci(h.GetStartContainer()), Poststart: oci(h.GetPoststart()), Poststop: oci(h.GetPoststop()),
	}
}

func adjustLinux(s *specs.Spec, a *api.LinuxContainerAdjustment) {
	if a == nil {
		return
	}
	l := s.Linux
	for _, d := range a.GetDevices() {
		path, marked := d.IsMarkedForRemoval()
		l.Devices = slices.DeleteFunc(slices.Clone(l.Devices), func(o specs.LinuxDevice) bool { return o.Path == path })
		if !marked {
			l.Devices = append(l.Devices, d.ToOCI())
		}
	}
	for _, ns := range a.GetNamespaces() {
		kind, marked := ns.IsMarkedForRemoval()
		l.Namespaces = slices.DeleteFunc(slices.Clone(l.Namespaces), func(o specs.LinuxNamespace) bool { return string(o.Type) == kind })
		if !marked {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind), Path: ns.GetPath()})
		}
	}
	if wish := a.GetSysctl(); len(wish) > 0 {
		l.Sysctl = maps.Clone(l.Sysctl)
		if l.Sysctl == nil {
			l.Sysctl = map[string]string{}
		}
		adjustMap(l.Sysctl, wish)
	}
	l.CgroupsPath = cmp.Or(a.GetCgroupsPath(), l.CgroupsPath)
	for name, d := range a.GetNetDevices() {
		if _, marked := api.IsMarkedForRemoval(name); !marked {
			l.NetDevices = map[string]specs.LinuxNetDevice{name: d.ToOCI()}
		}
	}
	if policy := a.GetMemoryPolicy(); policy != nil {
		l.MemoryPolicy = policy.ToOCI()
	}
	if rdt := a.GetRdt(); rdt.GetClosId() != nil || rdt.GetSchemata() != nil || rdt.GetEnableMonitoring().GetValue() {
		l.IntelRdt = &specs.LinuxIntelRdt{ClosID: rdt.GetClosId().GetValue()}
	}
	if policy := a.GetSeccompPolicy(); policy != nil {
		l.Seccomp = seccompSpec(policy)
	}
}

func seccompSpec(p *api.LinuxSeccomp) *specs.LinuxSeccomp {
	out := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(p.GetDefaultAction()),
		ListenerPath:  p.GetListenerPath(), ListenerMetadata: p.GetListenerMetadata(),
		Syscalls: api.ToOCILinuxSyscalls(p.GetSyscalls()),
	}
	if e := p.GetDefaultErrno(); e != nil {
		errno := uint(e.GetValue())
		out.DefaultErrnoRet = &errno
	}
	for _, a := range p.GetArchitectures() {
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range p.GetFlags() {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	return out
}

// adjustMounts keeps parents before children.
func adjustMounts(s *specs.Spec, mounts []*api.Mount) {
	for _, m := range mounts {
		destination, marked := m.IsMarkedForRemoval()
		s.Mounts = slices.DeleteFunc(s.Mounts, func(o specs.Mount) bool { return o.Destination == destination })
		if !marked {
			s.Mounts = append(s.Mounts, m.ToOCI(nil))
		}
	}
	depth := func(m specs.Mount) int { return strings.Count(m.Destination, "/") }
	slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a), depth(b)) })
}

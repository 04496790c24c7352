package spec

import (
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// AdoptForeign takes a spec that was made by Container (before) and then changed by
// others (after): by a device's description or a plugin. It brings the mounts that
// were added into Container's form, and refuses what the sandbox cannot give. The
// first finding is returned, and it names what was wished.
//
// Errors: ErrNeedsNative; ErrInvalidArgument for what is nonsense anywhere;
// ErrFailedPrecondition for the source of a mount that does not exist.
func AdoptForeign(before, after *specs.Spec) error {
	return firstError(foreign{before, after}, []func(foreign) error{
		foreignHooks, foreignProcess, foreignLinux, foreignDevices, foreignNamespaces, foreignMounts, foreignSeccomp, foreignLimits,
	})
}

// foreign is a spec that others have changed.
type foreign struct{ before, after *specs.Spec }

// added returns the entries of now that were not there before.
func added[T any](before, now []T) []T {
	var out []T
	for _, v := range now {
		if !slices.ContainsFunc(before, func(b T) bool { return reflect.DeepEqual(b, v) }) {
			out = append(out, v)
		}
	}
	return out
}

// linux is the Linux part of a spec; it is not nil.
func linux(s *specs.Spec) *specs.Linux {
	if s.Linux == nil {
		return &specs.Linux{}
	}
	return s.Linux
}

// foreignHooks: they are programs of the host, to be run in namespaces that the
// container does not have.
func foreignHooks(f foreign) error {
	h := f.after.Hooks
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, //lint:ignore SA1019 plugins still send them
		{"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		for _, hook := range kind.hooks {
			return needsNativef("hook %s %s", kind.name, hook.Path)
		}
	}
	return nil
}

func foreignProcess(f foreign) error {
	p := f.after.Process
	switch {
	case p == nil:
		return nil
	case p.IOPriority != nil:
		return needsNativef("I/O priority %s", p.IOPriority.Class)
	case p.Scheduler != nil:
		return needsNativef("scheduler %s", p.Scheduler.Policy)
	}
	for _, e := range p.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
			return invalidf("environment variable %q is not of the form NAME=VALUE", e)
		}
	}
	for _, a := range p.Args {
		if strings.ContainsRune(a, 0) {
			return invalidf("argument %q must not contain a NUL byte", a)
		}
	}
	return nil
}

func foreignLinux(f foreign) error {
	l := linux(f.after)
	switch {
	case l.CgroupsPath != "":
		return needsNativef("cgroup %s of its own", l.CgroupsPath)
	case l.IntelRdt != nil:
		return needsNativef("resource class %q (RDT)", l.IntelRdt.ClosID)
	case l.MemoryPolicy != nil:
		return needsNativef("memory policy %s", l.MemoryPolicy.Mode)
	case l.Resources != nil && l.Resources.BlockIO != nil:
		return needsNativef("block I/O class")
	}
	for _, name := range sortedKeys(l.NetDevices) {
		return needsNativef("network device %s of the host", name)
	}
	for _, name := range sortedKeys(l.Sysctl) {
		if linux(f.before).Sysctl[name] != l.Sysctl[name] {
			return needsNativef("sysctl %s of a single container", name)
		}
	}
	return nil
}

func foreignDevices(f foreign) error {
	for _, d := range added(linux(f.before).Devices, linux(f.after).Devices) {
		if err := checkDevice(d); err != nil {
			return err
		}
	}
	return nil
}

// foreignNamespaces: all but the PID namespace are the sandbox's, and that one is
// the container's or the pod's.
func foreignNamespaces(f foreign) error {
	for _, ns := range added(linux(f.before).Namespaces, linux(f.after).Namespaces) {
		if ns.Type != specs.PIDNamespace || ns.Path != "" && ns.Path != engine.PodPIDNamespace {
			return needsNativef("%s namespace %s", ns.Type, ns.Path)
		}
	}
	for _, ns := range added(linux(f.after).Namespaces, linux(f.before).Namespaces) {
		if ns.Type != specs.PIDNamespace {
			return needsNativef("%s namespace of the host", ns.Type)
		}
	}
	return nil
}

func foreignMounts(f foreign) error {
	for i := range f.after.Mounts {
		m := &f.after.Mounts[i]
		if len(added(f.before.Mounts, []specs.Mount{*m})) == 0 {
			continue
		}
		if err := adoptMount(m, linux(f.after)); err != nil {
			return err
		}
	}
	return nil
}

// adoptMount: a type that is left out is a bind, and a bind's source is without
// links. Other than the kubelet's, a source that does not exist is not made.
func adoptMount(m *specs.Mount, l *specs.Linux) error {
	if err := checkAbs("mount destination", m.Destination); err != nil {
		return err
	}
	m.Destination = path.Clean(m.Destination)
	if m.Destination == "/" {
		return invalidf("mount destination / would hide the container's image")
	}
	if engineServes(m.Destination) {
		return needsNativef("mount over %s", m.Destination)
	}
	bound := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	switch {
	case m.Type == "bind", m.Type == "", bound:
		return adoptBind(m, bound, l)
	case m.Type == "tmpfs":
		return nil
	}
	return needsNativef("mount of the type %q at %s", m.Type, m.Destination)
}

// adoptBind: the option idmap means the ids of the pod's user namespace.
func adoptBind(m *specs.Mount, bound bool, l *specs.Linux) error {
	if slices.ContainsFunc(m.Options, isOption("shared")) {
		return needsNativef("mount %s with bidirectional propagation", m.Destination)
	}
	if slices.ContainsFunc(m.Options, isOption("idmap")) {
		if len(l.UIDMappings) == 0 {
			return needsNativef("mount %s with mapped user or group ids, in a pod without a user namespace of its own", m.Destination)
		}
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), isOption("idmap"))
		m.UIDMappings, m.GIDMappings = l.UIDMappings, l.GIDMappings
	}
	if err := checkAbs("source of mount "+m.Destination, m.Source); err != nil {
		return err
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return classifyPath(m.Source, err)
	}
	m.Type, m.Source = "bind", source
	if !bound {
		m.Options = append([]string{"rbind"}, m.Options...)
	}
	return nil
}

// isOption finds a mount option also in its recursive form.
func isOption(name string) func(string) bool {
	return func(o string) bool { return o == name || o == "r"+name }
}

// foreignSeccomp brings another filter into terms of the sandbox. The engine relies
// on its being checked.
func foreignSeccomp(f foreign) error {
	filter := linux(f.after).Seccomp
	if filter == nil || reflect.DeepEqual(filter, linux(f.before).Seccomp) {
		return nil
	}
	if err := checkSeccomp(filter); err != nil {
		return err
	}
	return fitSeccomp(filter)
}

// rlimits are those that setrlimit(2) knows.
var rlimits = []string{
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
}

func foreignLimits(f foreign) error {
	if f.after.Process == nil {
		return nil
	}
	for _, l := range f.after.Process.Rlimits {
		switch {
		case !slices.Contains(rlimits, l.Type):
			return invalidf("resource limit %q is unknown", l.Type)
		case l.Soft > l.Hard:
			return invalidf("resource limit %s is %d, over its hard limit %d", l.Type, l.Soft, l.Hard)
		}
	}
	return nil
}

package gvisor

import (
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// change is a spec that others have changed.
type change struct{ before, after *specs.Spec }

func specChecks() []func(change) error {
	return []func(change) error{
		specHooks, specProcess, specLinux, specDevices, specNamespaces, specMounts, specSeccomp,
	}
}

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

// linuxOf is the Linux part of a spec; it is not nil.
func linuxOf(s *specs.Spec) *specs.Linux {
	if s.Linux == nil {
		return &specs.Linux{}
	}
	return s.Linux
}

// specHooks: they are programs of the host, to be run in namespaces that the
// container does not have.
func specHooks(c change) error {
	h := c.after.Hooks
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
			return needsHostf("hook %s %s", kind.name, hook.Path)
		}
	}
	return nil
}

func specProcess(c change) error {
	p := c.after.Process
	switch {
	case p == nil:
		return nil
	case p.IOPriority != nil:
		return needsHostf("I/O priority %s", p.IOPriority.Class)
	case p.Scheduler != nil:
		return needsHostf("scheduler %s", p.Scheduler.Policy)
	}
	return nil
}

func specLinux(c change) error {
	l := linuxOf(c.after)
	switch {
	case l.CgroupsPath != "":
		return needsHostf("cgroup %s of its own", l.CgroupsPath)
	case l.IntelRdt != nil:
		return needsHostf("resource class %q (RDT)", l.IntelRdt.ClosID)
	case l.MemoryPolicy != nil:
		return needsHostf("memory policy %s", l.MemoryPolicy.Mode)
	case l.Resources != nil && l.Resources.BlockIO != nil:
		return needsHostf("block I/O class")
	}
	for _, name := range slices.Sorted(maps.Keys(l.NetDevices)) {
		return needsHostf("network device %s of the host", name)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Sysctl)) {
		if linuxOf(c.before).Sysctl[name] != l.Sysctl[name] {
			return needsHostf("sysctl %s of a single container", name)
		}
	}
	return nil
}

// sandboxDevices are the character devices that the Sentry has itself, whatever
// the host has: a node of one of these numbers opens the sandbox's own device. In
// gVisor: pkg/sentry/devices, pkg/sentry/fsimpl/fuse.
var sandboxDevices = map[[2]int64]string{
	{1, 3}: "null", {1, 5}: "zero", {1, 7}: "full", {1, 8}: "random", {1, 9}: "urandom",
	{5, 0}: "tty", {10, 200}: "net/tun", {10, 229}: "fuse",
}

// specDevices refuses what is not one of the sandbox's own devices. There is no
// device cgroup in the sandbox: its own devices are there for every container.
func specDevices(c change) error {
	for _, d := range added(linuxOf(c.before).Devices, linuxOf(c.after).Devices) {
		_, own := sandboxDevices[[2]int64{d.Major, d.Minor}]
		switch {
		case d.Type != "c" && d.Type != "u" || !own:
			return needsHostf("device %s (%s %d:%d) of the host", d.Path, d.Type, d.Major, d.Minor)
		case !strings.HasPrefix(path.Clean(d.Path), "/dev/"):
			return needsHostf("device node %s outside of /dev", d.Path)
		}
	}
	return nil
}

// specNamespaces: all but the PID namespace are the sandbox's, and that one is
// the container's or the pod's.
func specNamespaces(c change) error {
	for _, ns := range added(linuxOf(c.before).Namespaces, linuxOf(c.after).Namespaces) {
		if ns.Type != specs.PIDNamespace || ns.Path != "" && ns.Path != engine.PodPIDNamespace {
			return needsHostf("%s namespace %s", ns.Type, ns.Path)
		}
	}
	for _, ns := range added(linuxOf(c.after).Namespaces, linuxOf(c.before).Namespaces) {
		if ns.Type != specs.PIDNamespace {
			return needsHostf("%s namespace of the host", ns.Type)
		}
	}
	return nil
}

func specMounts(c change) error {
	for _, m := range added(c.before.Mounts, c.after.Mounts) {
		switch {
		case sentryServes(m.Destination):
			return needsHostf("mount over %s", m.Destination)
		case !isBind(m) && m.Type != "tmpfs":
			return needsHostf("mount of the type %q at %s", m.Type, m.Destination)
		case !isBind(m):
		case slices.ContainsFunc(m.Options, isOption("shared")):
			return needsHostf("mount %s with bidirectional propagation", m.Destination)
		case slices.ContainsFunc(m.Options, isOption("idmap")):
			return needsHostf("mount %s with mapped user or group ids, in a pod without a user namespace of its own", m.Destination)
		}
	}
	return nil
}

// isOption finds a mount option also in its recursive form.
func isOption(name string) func(string) bool {
	return func(o string) bool { return o == name || o == "r"+name }
}

func specSeccomp(c change) error {
	filter := linuxOf(c.after).Seccomp
	if reflect.DeepEqual(filter, linuxOf(c.before).Seccomp) {
		return nil
	}
	_, err := fitSeccomp(filter)
	return err
}

package spec

import (
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// NormalizeChanges takes a spec that was made by Container (before) and then changed by
// others (after): by a device's description or a plugin. It brings the mounts that were
// added into Container's form, and refuses what is nonsense to any engine; what an engine
// cannot give, that refuses afterwards. The first finding is returned, and it names what
// was wished.
//
// Errors: ErrInvalidArgument; ErrFailedPrecondition for the source of a mount that does
// not exist.
func NormalizeChanges(before, after *specs.Spec) error {
	return firstError(changed{before, after}, []func(changed) error{changedProcess, changedMounts, changedSeccomp, changedLimits})
}

// changed is a spec that others have changed.
type changed struct{ before, after *specs.Spec }

// linux is the Linux part of a spec; it is not nil.
func linux(s *specs.Spec) *specs.Linux {
	if s.Linux == nil {
		return &specs.Linux{}
	}
	return s.Linux
}

func changedProcess(c changed) error {
	p := c.after.Process
	if p == nil {
		return nil
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

func changedMounts(c changed) error {
	for i := range c.after.Mounts {
		m := &c.after.Mounts[i]
		if slices.ContainsFunc(c.before.Mounts, func(b specs.Mount) bool { return reflect.DeepEqual(b, *m) }) {
			continue
		}
		if err := normalizeMount(m, linux(c.after)); err != nil {
			return err
		}
	}
	return nil
}

// normalizeMount: a type that is left out is a bind, and a bind's source is without
// links. Other than the kubelet's, a source that does not exist is not made.
func normalizeMount(m *specs.Mount, l *specs.Linux) error {
	if err := checkAbs("mount destination", m.Destination); err != nil {
		return err
	}
	m.Destination = path.Clean(m.Destination)
	if m.Destination == "/" {
		return invalidf("mount destination / would hide the container's image")
	}
	bound := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	if m.Type == "bind" || m.Type == "" || bound {
		return normalizeBind(m, bound, l)
	}
	return nil
}

// normalizeBind: the option idmap means the ids of the pod's user namespace. In a pod
// without one it stays, for the engine.
func normalizeBind(m *specs.Mount, bound bool, l *specs.Linux) error {
	if err := checkAbs("source of mount "+m.Destination, m.Source); err != nil {
		return err
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return classifyPath(m.Source, err)
	}
	m.Type, m.Source = "bind", source
	if len(l.UIDMappings) > 0 && slices.ContainsFunc(m.Options, isIDMap) {
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), isIDMap)
		m.UIDMappings, m.GIDMappings = l.UIDMappings, l.GIDMappings
	}
	if !bound {
		m.Options = append([]string{"rbind"}, m.Options...)
	}
	return nil
}

func isIDMap(option string) bool { return option == "idmap" || option == "ridmap" }

func changedSeccomp(c changed) error {
	filter := linux(c.after).Seccomp
	if filter == nil || reflect.DeepEqual(filter, linux(c.before).Seccomp) {
		return nil
	}
	return checkSeccomp(filter)
}

// rlimits are those that setrlimit(2) knows.
var rlimits = []string{
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
}

func changedLimits(c changed) error {
	if c.after.Process == nil {
		return nil
	}
	for _, l := range c.after.Process.Rlimits {
		switch {
		case !slices.Contains(rlimits, l.Type):
			return invalidf("resource limit %q is unknown", l.Type)
		case l.Soft > l.Hard:
			return invalidf("resource limit %s is %d, over its hard limit %d", l.Type, l.Soft, l.Hard)
		}
	}
	return nil
}

package gvisor

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fitSeccomp returns a filter in terms of what the Sentry can do, and refuses what it
// cannot. Architectures and flags stay; it has no use for them. One that was fitted
// before stays as it is. The format was checked by package spec: an argument index
// beyond 5 would end the Sentry.
func fitSeccomp(s *specs.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	if s == nil {
		return nil, nil
	}
	fitted := *s
	var err error
	if fitted.DefaultAction, err = fitAction(s.DefaultAction); err != nil {
		return nil, err
	}
	if s.ListenerPath != "" {
		return nil, needsHostf("seccomp listener %s", s.ListenerPath)
	}
	fitted.Syscalls = nil
	for _, call := range s.Syscalls {
		if call.Action, err = fitAction(call.Action); err != nil {
			return nil, err
		}
		fitted.Syscalls = append(fitted.Syscalls, splitClone3(call)...)
	}
	return &fitted, nil
}

func fitAction(a specs.LinuxSeccompAction) (specs.LinuxSeccompAction, error) {
	switch a {
	case specs.ActKillThread: // the newer name of the same action
		return specs.ActKill, nil
	case specs.ActKillProcess, specs.ActLog, specs.ActNotify:
		return a, needsHostf("seccomp action %s", a)
	}
	return a, nil
}

// splitClone3 gives clone3 its errno. The Sentry answers EPERM to whatever is
// denied, but C libraries fall back to clone, whose flags a filter can see, only
// on ENOSYS; with EPERM no thread could be made. "Trace" answers ENOSYS when
// nobody traces. A tracer in the container can let the call pass; that is why
// this is done for clone3 alone.
func splitClone3(call specs.LinuxSyscall) []specs.LinuxSyscall {
	const name = "clone3"
	if call.Action != specs.ActErrno || call.ErrnoRet == nil || *call.ErrnoRet != uint(unix.ENOSYS) || !slices.Contains(call.Names, name) {
		return []specs.LinuxSyscall{call}
	}
	rules := []specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActTrace, Args: call.Args}}
	if rest := slices.DeleteFunc(slices.Clone(call.Names), func(n string) bool { return n == name }); len(rest) > 0 {
		call.Names = rest
		rules = append(rules, call)
	}
	return rules
}

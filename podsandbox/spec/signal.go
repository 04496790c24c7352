package spec

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The real-time signals that programs see; the C library keeps 32 and 33.
const (
	rtMin = 34
	rtMax = 64
)

// StopSignal is the signal that asks a container to end: the one of the request,
// else the image's STOPSIGNAL, else SIGTERM. An unknown one is ErrInvalidArgument.
func StopSignal(image string, c *runtimeapi.ContainerConfig) (unix.Signal, error) {
	if sig, err := requestSignal(c.GetStopSignal()); sig != 0 || err != nil {
		return sig, err
	}
	if image == "" {
		return unix.SIGTERM, nil
	}
	sig, ok := parseSignal(image)
	if !ok {
		return 0, invalidf("image has the unknown stop signal %q", image)
	}
	return sig, nil
}

// requestSignal returns 0 for "the runtime's default".
func requestSignal(s runtimeapi.Signal) (unix.Signal, error) {
	if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return 0, nil
	}
	name, known := runtimeapi.Signal_name[int32(s)]
	if !known {
		return 0, invalidf("stop signal %d is unknown", s)
	}
	name = strings.NewReplacer("SIGNAL_", "", "PLUS", "+", "MINUS", "-").Replace(name)
	sig, ok := parseSignal(name)
	if !ok {
		return 0, invalidf("stop signal %s does not exist on Linux", name)
	}
	return sig, nil
}

// parseSignal reads a number, or a name with or without SIG in any case, such as
// SIGTERM, term, SIGRTMIN+3 or RTMAX-2.
func parseSignal(s string) (unix.Signal, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return unix.Signal(n), n >= 1 && n <= rtMax
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, rt := range []struct {
		base string
		from int
		sign byte
	}{{"SIGRTMIN", rtMin, '+'}, {"SIGRTMAX", rtMax, '-'}} {
		offset, ok := strings.CutPrefix(name, rt.base)
		if !ok {
			continue
		}
		if offset == "" {
			return unix.Signal(rt.from), true
		}
		n, err := strconv.ParseUint(offset[1:], 10, 8)
		if err != nil || offset[0] != rt.sign || n > rtMax-rtMin {
			return 0, false
		}
		if rt.sign == '-' {
			return unix.Signal(rt.from - int(n)), true
		}
		return unix.Signal(rt.from + int(n)), true
	}
	switch name {
	case "SIGCLD":
		name = "SIGCHLD"
	case "SIGPOLL":
		name = "SIGIO"
	case "SIGIOT":
		name = "SIGABRT"
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}

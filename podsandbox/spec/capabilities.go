package spec

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
)

// defaultCapabilities are those that containers get on every common runtime.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD",
	"CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// capabilities applies a request to the defaults: first ALL in add, then ALL in
// drop, then single names added, then single names dropped. Names count with and
// without CAP_, in any case; an unknown one is ErrInvalidArgument.
//
// Two sets differ from the letter of the interface. The inheritable set holds only
// what is ambient: a wider one would let a program with inheritable file
// capabilities gain them (CVE-2022-24769). And a user other than root starts with
// the ambient capabilities alone. That is what execve leaves of any effective set on
// Linux; an engine may take the sets of the first process as they are.
func capabilities(c *runtimeapi.Capability, uid uint32) (*specs.LinuxCapabilities, error) {
	add, addAll, err := capabilityNames("add", c.GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	ambient, ambientAll, err := capabilityNames("ambient", c.GetAddAmbientCapabilities())
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capabilityNames("drop", c.GetDropCapabilities())
	if err != nil {
		return nil, err
	}

	has := map[string]bool{}
	if !dropAll {
		base := defaultCapabilities
		if addAll || ambientAll {
			base = capability.All
		}
		mark(has, base, true)
	}
	mark(has, add, true)
	mark(has, ambient, true)
	mark(has, drop, false)

	raised := map[string]bool{}
	if ambientAll {
		mark(raised, capability.All, true)
	}
	mark(raised, ambient, true)
	for name := range raised {
		raised[name] = has[name] // dropped means dropped from all sets
	}

	bounding, kept := inOrder(has), inOrder(raised)
	start := bounding
	if uid != 0 {
		start = kept
	}
	return &specs.LinuxCapabilities{
		Bounding: bounding, Effective: slices.Clone(start), Permitted: slices.Clone(start),
		Inheritable: kept, Ambient: slices.Clone(kept),
	}, nil
}

func capabilityNames(list string, names []string) (known []string, all bool, _ error) {
	for _, given := range names {
		name := "CAP_" + strings.TrimPrefix(strings.ToUpper(given), "CAP_")
		switch {
		case name == "CAP_ALL":
			all = true
		case slices.Contains(capability.All, name):
			known = append(known, name)
		default:
			return nil, false, invalidf("capability %q to %s is unknown", given, list)
		}
	}
	return known, all, nil
}

func mark(set map[string]bool, names []string, v bool) {
	for _, name := range names {
		set[name] = v
	}
}

func inOrder(set map[string]bool) []string {
	var names []string
	for _, name := range capability.All {
		if set[name] {
			names = append(names, name)
		}
	}
	return names
}

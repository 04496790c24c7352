package spec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The string forms of a profile, from before there was a message for it.
const (
	profileDefault    = "runtime/default"
	profileUnconfined = "unconfined"
	profileLocalhost  = "localhost/"
)

// seccompRequest brings both forms of a request into one; the message wins. Nil
// and the empty string mean unconfined.
func seccompRequest(p *runtimeapi.SecurityProfile, legacy string) (*runtimeapi.SecurityProfile, error) {
	if p != nil {
		return p, checkProfile("seccomp", p)
	}
	switch {
	case legacy == "", legacy == profileUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case legacy == profileDefault, legacy == "docker/default":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case len(legacy) > len(profileLocalhost) && strings.HasPrefix(legacy, profileLocalhost):
		return &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: strings.TrimPrefix(legacy, profileLocalhost),
		}, nil
	}
	return nil, invalidf("seccomp profile %q is none of runtime/default, unconfined and localhost/PATH", legacy)
}

// containerSeccomp returns the filter of a container, nil for none.
func containerSeccomp(sc *runtimeapi.LinuxContainerSecurityContext, root string, caps *specs.LinuxCapabilities) (*specs.LinuxSeccomp, error) {
	p, err := seccompRequest(sc.GetSeccomp(), sc.GetSeccompProfilePath()) //nolint:staticcheck // older kubelets send the string
	if err != nil {
		return nil, err
	}
	switch p.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		filter, err := mobyseccomp.GetDefaultProfile(specOf(caps))
		if err != nil {
			return nil, fmt.Errorf("resolve default seccomp profile: %w: %w", err, errdefs.ErrInternal)
		}
		return filter, nil
	case runtimeapi.SecurityProfile_Localhost:
		data, err := readSeccomp(root, p.GetLocalhostRef())
		if err != nil {
			return nil, err
		}
		filter, err := DecodeSeccomp(data, caps)
		if err != nil {
			return nil, fmt.Errorf("seccomp profile %s: %w", p.GetLocalhostRef(), err)
		}
		return filter, nil
	default:
		return nil, nil
	}
}

// DecodeSeccomp reads a profile in the format of the OCI runtime spec or in
// Docker's, whose conditions are resolved for the container's capabilities, this
// machine's architecture and its kernel. A profile that cannot be read, or that
// would filter nothing, is ErrInvalidArgument.
func DecodeSeccomp(data []byte, caps *specs.LinuxCapabilities) (*specs.LinuxSeccomp, error) {
	// The library follows every entry without looking for null.
	var entries struct {
		Syscalls []*json.RawMessage `json:"syscalls"`
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, invalidf("not a JSON profile: %v", err)
	}
	if slices.Contains(entries.Syscalls, nil) {
		return nil, invalidf("an entry of syscalls is null")
	}
	filter, err := mobyseccomp.LoadProfile(string(data), specOf(caps))
	switch {
	case err != nil:
		return nil, invalidf("%v", err)
	case filter == nil:
		return nil, invalidf("defaultAction is missing")
	}
	if err := checkSeccomp(filter); err != nil {
		return nil, err
	}
	return filter, nil
}

// specOf wraps what conditions of a profile are resolved against.
func specOf(caps *specs.LinuxCapabilities) *specs.Spec {
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	return &specs.Spec{Process: &specs.Process{Capabilities: caps}}
}

var (
	seccompActions = []specs.LinuxSeccompAction{
		specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
		specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
	}
	seccompOperators = []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
		specs.OpGreaterThan, specs.OpMaskedEqual,
	}
)

// checkSeccomp refuses what the format does not allow. Engines rely on it.
func checkSeccomp(s *specs.LinuxSeccomp) error {
	if !slices.Contains(seccompActions, s.DefaultAction) {
		return invalidf("defaultAction %q is unknown", s.DefaultAction)
	}
	for _, call := range s.Syscalls {
		if len(call.Names) == 0 {
			return invalidf("an entry of syscalls has no names")
		}
		if !slices.Contains(seccompActions, call.Action) {
			return invalidf("action %q of %s is unknown", call.Action, call.Names[0])
		}
		for _, arg := range call.Args {
			if arg.Index > 5 {
				return invalidf("argument %d of %s is outside 0–5", arg.Index, call.Names[0])
			}
			if !slices.Contains(seccompOperators, arg.Op) {
				return invalidf("operator %q of %s is unknown", arg.Op, call.Names[0])
			}
		}
	}
	return nil
}

package spec

import (
	"math"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func podUser(c *runtimeapi.PodSandboxConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return invalidf("pod has run_as_group without run_as_user")
	}
	if err := checkIDs("run_as_user", sc.GetRunAsUser()); err != nil {
		return err
	}
	if err := checkIDs("run_as_group", sc.GetRunAsGroup()); err != nil {
		return err
	}
	return checkGroups(sc.GetSupplementalGroups(), sc.GetSupplementalGroupsPolicy())
}

func containerUser(r containerRequest) error {
	sc := r.security()
	if sc.GetRunAsUser() != nil && sc.GetRunAsUsername() != "" {
		return invalidf("container has both run_as_user and run_as_username; set one of them")
	}
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
		return invalidf("container has run_as_group without run_as_user or run_as_username")
	}
	if err := checkIDs("run_as_user", sc.GetRunAsUser()); err != nil {
		return err
	}
	return checkIDs("run_as_group", sc.GetRunAsGroup())
}

func containerGroups(r containerRequest) error {
	return checkGroups(r.security().GetSupplementalGroups(), r.security().GetSupplementalGroupsPolicy())
}

func checkIDs(what string, ids ...*runtimeapi.Int64Value) error {
	for _, id := range ids {
		if id != nil && !validID(id.GetValue()) {
			return invalidf("%s %d is outside 0–%d", what, id.GetValue(), math.MaxInt32)
		}
	}
	return nil
}

// validID keeps to the range that the parsers of passwd files and OCI runtimes
// share; the kernel itself would take more.
func validID(id int64) bool { return id >= 0 && id <= math.MaxInt32 }

func checkGroups(groups []int64, policy runtimeapi.SupplementalGroupsPolicy) error {
	if _, known := runtimeapi.SupplementalGroupsPolicy_name[int32(policy)]; !known {
		return invalidf("supplemental groups policy %d is unknown; use Merge or Strict", policy)
	}
	for _, g := range groups {
		if !validID(g) {
			return invalidf("supplemental group %d is outside 0–%d", g, math.MaxInt32)
		}
	}
	return nil
}

func podNamespaceModes(c *runtimeapi.PodSandboxConfig) error {
	o := c.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o.GetPid() == runtimeapi.NamespaceMode_TARGET {
		return invalidf("PID namespace mode TARGET is not defined for a pod; set it on a container")
	}
	return checkNamespaces(o)
}

func containerNamespaceModes(r containerRequest) error {
	o := r.security().GetNamespaceOptions()
	if err := checkNamespaces(o); err != nil {
		return err
	}
	// The other way round is a container that says nothing: it shares what the pod has.
	if o.GetNetwork() == runtimeapi.NamespaceMode_NODE && !HostNetwork(r.pod) {
		return invalidf("container asks for the host's network but its pod has its own; set it on the pod")
	}
	return nil
}

func checkNamespaces(o *runtimeapi.NamespaceOption) error {
	for _, n := range []struct {
		name string
		mode runtimeapi.NamespaceMode
		pid  bool
	}{
		{"network", o.GetNetwork(), false}, {"IPC", o.GetIpc(), false}, {"PID", o.GetPid(), true},
		{"user", o.GetUsernsOptions().GetMode(), false},
	} {
		switch n.mode {
		case runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE:
		case runtimeapi.NamespaceMode_CONTAINER, runtimeapi.NamespaceMode_TARGET:
			if !n.pid {
				return invalidf("%s namespace mode %s is not defined; use POD or NODE", n.name, n.mode)
			}
		default:
			return invalidf("%s namespace mode %d is unknown", n.name, n.mode)
		}
	}
	if target := o.GetPid() == runtimeapi.NamespaceMode_TARGET; target != (o.GetTargetId() != "") {
		return invalidf("PID namespace mode TARGET and target_id go together; set both or neither")
	}
	u := o.GetUsernsOptions()
	if u.GetMode() == runtimeapi.NamespaceMode_NODE && len(u.GetUids())+len(u.GetGids()) > 0 {
		return invalidf("user namespace mode NODE takes no mappings")
	}
	return nil
}

func containerCapabilities(r containerRequest) error {
	_, err := capabilities(r.security().GetCapabilities(), 0)
	return err
}

// containerPaths covers the paths that are made unreadable or read-only.
func containerPaths(r containerRequest) error {
	for _, p := range r.security().GetMaskedPaths() {
		if err := checkAbs("masked path", p); err != nil {
			return err
		}
	}
	for _, p := range r.security().GetReadonlyPaths() {
		if err := checkAbs("readonly path", p); err != nil {
			return err
		}
	}
	return nil
}

// podProfiles and containerProfiles check the form alone; the profile itself is
// read when a container is created.
func podProfiles(c *runtimeapi.PodSandboxConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	if _, err := seccompRequest(sc.GetSeccomp(), sc.GetSeccompProfilePath()); err != nil { //nolint:staticcheck // older kubelets send the string
		return err
	}
	return checkProfile("AppArmor", sc.GetApparmor())
}

func containerProfiles(r containerRequest) error {
	sc := r.security()
	if _, err := seccompRequest(sc.GetSeccomp(), sc.GetSeccompProfilePath()); err != nil { //nolint:staticcheck // older kubelets send the string
		return err
	}
	if err := checkProfile("AppArmor", sc.GetApparmor()); err != nil {
		return err
	}
	switch p := sc.GetApparmorProfile(); { //nolint:staticcheck // older kubelets send the string
	case p == "", p == profileDefault, p == profileUnconfined, strings.HasPrefix(p, profileLocalhost):
		return nil
	default:
		return invalidf("AppArmor profile %q is none of runtime/default, unconfined and localhost/NAME", p)
	}
}

func checkProfile(what string, p *runtimeapi.SecurityProfile) error {
	_, known := runtimeapi.SecurityProfile_ProfileType_name[int32(p.GetProfileType())]
	local := p.GetProfileType() == runtimeapi.SecurityProfile_Localhost
	switch {
	case !known:
		return invalidf("%s profile type %d is unknown", what, p.GetProfileType())
	case local && p.GetLocalhostRef() == "":
		return invalidf("%s profile of type Localhost names no profile", what)
	case !local && p.GetLocalhostRef() != "":
		return invalidf("%s profile %q needs the type Localhost", what, p.GetLocalhostRef())
	}
	return nil
}

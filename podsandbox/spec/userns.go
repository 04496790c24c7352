package spec

import (
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// IDs is the mapping of the pod's user namespace (hostUsers: false); the zero value
// stands for a pod without one. The config has passed ValidatePod.
func IDs(c *runtimeapi.PodSandboxConfig) idmap.Mapping {
	u := c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if u == nil || u.GetMode() != runtimeapi.NamespaceMode_POD {
		return idmap.Mapping{}
	}
	return idmap.Mapping{UIDs: ociMapping(u.GetUids()), GIDs: ociMapping(u.GetGids())}
}

func ociMapping(ranges []*runtimeapi.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, r := range ranges {
		out = append(out, specs.LinuxIDMapping{ContainerID: r.GetContainerId(), HostID: r.GetHostId(), Size: r.GetLength()})
	}
	return out
}

// podUserNamespace checks the form of a pod's mapping. One range, the same for
// users and groups, is what Kubernetes gives to a pod; root of the pod must be
// somebody, and must not be root of the host.
func podUserNamespace(c *runtimeapi.PodSandboxConfig) error {
	u := c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if u == nil || u.GetMode() != runtimeapi.NamespaceMode_POD {
		return nil
	}
	if len(u.GetUids()) != 1 || len(u.GetGids()) != 1 {
		return invalidf("user namespace has %d ranges of user ids and %d of group ids; send one of each", len(u.GetUids()), len(u.GetGids()))
	}
	uids, gids := u.GetUids()[0], u.GetGids()[0]
	if err := checkRange("user namespace", uids); err != nil {
		return err
	}
	switch {
	case !sameRange(uids, gids):
		return invalidf("user namespace maps user ids (%s) and group ids (%s) differently", rangeText(uids), rangeText(gids))
	case uids.GetContainerId() != 0:
		return invalidf("user namespace does not map id 0 of the pod")
	case uids.GetHostId() == 0:
		return invalidf("user namespace maps the host's root")
	}
	return nil
}

// containerUserNamespace: all containers of a pod share its user namespace. One
// that says nothing does.
func containerUserNamespace(r containerRequest) error {
	u := r.security().GetNamespaceOptions().GetUsernsOptions()
	if u == nil {
		return nil
	}
	pod := r.pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if u.GetMode() != podUserMode(pod) || !sameRanges(u.GetUids(), pod.GetUids()) || !sameRanges(u.GetGids(), pod.GetGids()) {
		return invalidf("container asks for another user namespace than its pod has")
	}
	return nil
}

// podUserMode is POD only where it was said; it is the protocol's zero value, too.
func podUserMode(u *runtimeapi.UserNamespace) runtimeapi.NamespaceMode {
	if u == nil {
		return runtimeapi.NamespaceMode_NODE
	}
	return u.GetMode()
}

func checkRange(what string, r *runtimeapi.IDMapping) error {
	const most = math.MaxUint32 // an id of -1 means none
	if r.GetLength() == 0 {
		return invalidf("%s has an empty range of ids", what)
	}
	for _, first := range []uint32{r.GetContainerId(), r.GetHostId()} {
		if uint64(first)+uint64(r.GetLength()) > most {
			return invalidf("%s has the range %s, which goes beyond %d", what, rangeText(r), most-1)
		}
	}
	return nil
}

func rangeText(r *runtimeapi.IDMapping) string {
	return fmt.Sprintf("%d:%d:%d", r.GetContainerId(), r.GetHostId(), r.GetLength())
}

func sameRange(a, b *runtimeapi.IDMapping) bool {
	return a.GetContainerId() == b.GetContainerId() && a.GetHostId() == b.GetHostId() && a.GetLength() == b.GetLength()
}

func sameRanges(a, b []*runtimeapi.IDMapping) bool { return slices.EqualFunc(a, b, sameRange) }

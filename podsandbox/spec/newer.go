package spec

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Fields of the cri-api v0.38 that this version is not built with, by number. A
// kubelet that has them sends them, and a runtime must refuse what it cannot honour;
// as fields that nobody knows they would be passed over.
var (
	newerSecurity   = map[protowire.Number]string{18: "cgroup_mount_mode"}
	newerNamespaces = map[protowire.Number]string{6: "cgroupns_options"}
	newerProfile    = map[protowire.Number]string{3: "oci_ref", 4: "base_profile"}
)

func podNewerFields(c *runtimeapi.PodSandboxConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	return errors.Join(checkNewer(sc.GetNamespaceOptions(), newerNamespaces),
		checkNewer(sc.GetSeccomp(), newerProfile), checkNewer(sc.GetApparmor(), newerProfile))
}

func containerNewerFields(r containerRequest) error {
	sc := r.security()
	return errors.Join(checkNewer(sc, newerSecurity), checkNewer(sc.GetNamespaceOptions(), newerNamespaces),
		checkNewer(sc.GetSeccomp(), newerProfile), checkNewer(sc.GetApparmor(), newerProfile))
}

// checkNewer finds one of the fields in what was left over when a message was read.
func checkNewer(m proto.Message, fields map[protowire.Number]string) error {
	rest := m.ProtoReflect().GetUnknown()
	for len(rest) > 0 {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil // not the wire format: not from a message that was read
		}
		if name, ok := fields[number]; ok {
			return fmt.Errorf("%s is set, of a newer interface than this version serves: %w", name, errdefs.ErrFailedPrecondition)
		}
		rest = rest[n:]
	}
	return nil
}

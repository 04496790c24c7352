package podsandbox

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// checkMapped refuses a user that the pod's user namespace does not have: it could
// make no file.
func checkMapped(ids idmap.Mapping, user spec.ResolvedUser) error {
	for _, gid := range append([]uint32{user.GID}, user.Groups...) {
		if _, _, ok := ids.ToHost(user.UID, gid); !ok {
			return fmt.Errorf("user %d or group %d is not in the pod's user namespace: %w", user.UID, gid, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

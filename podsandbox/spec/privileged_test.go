package spec

import (
	"slices"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
)

// TestContainerPrivileged: all capabilities for root and none in effect for others, as
// execve would leave them, and none that can be inherited (CVE-2022-24769).
func TestContainerPrivileged(t *testing.T) {
	for _, uid := range []uint32{0, 7} {
		in := baseInput()
		in.User.UID = uid
		in.Container.Linux.SecurityContext.Privileged = true
		s, err := Container(in)
		if err != nil {
			t.Fatal(err)
		}
		c := s.Process.Capabilities
		if !slices.Equal(c.Bounding, capability.All) || len(c.Inheritable) > 0 {
			t.Errorf("user %d: bounding %q, inheritable %q", uid, c.Bounding, c.Inheritable)
		}
		if effective := len(c.Effective) > 0; effective != (uid == 0) {
			t.Errorf("user %d: effective %q", uid, c.Effective)
		}
		if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 {
			t.Errorf("user %d: still held by %+v", uid, s.Linux)
		}
	}
}

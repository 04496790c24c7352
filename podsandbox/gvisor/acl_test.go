package gvisor

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

type aclEntry struct {
	tag, bits uint16
	id        uint32
}

// acl is an attribute with the owner's entry and others.
func acl(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range append([]aclEntry{{0x01, 7, 0}}, entries...) {
		if e.tag != aclUser && e.tag != aclGroup {
			e.id = 1<<32 - 1
		}
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.bits)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func TestDeniedByAnACL(t *testing.T) {
	for name, c := range map[string]struct {
		acl  []byte
		want string
	}{
		"none":                     {nil, ""},
		"of another version":       {[]byte{3, 0, 0, 0, 4, 0, 0, 0}, ""},
		"cut off":                  {acl(aclEntry{aclMask, 7, 0})[:17], ""},
		"the bits":                 {acl(aclEntry{aclOwnerGroup, 0, 0}, aclEntry{aclOther, 5, 0}), ""},
		"of a journal":             {acl(aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclGroup, 5, 4}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 5, 0}), ""},
		"a user too many":          {acl(aclEntry{aclUser, 0, 1000}, aclEntry{aclOwnerGroup, 4, 0}, aclEntry{aclMask, 4, 0}, aclEntry{aclOther, 4, 0}), "user 1000"},
		"one of the group":         {acl(aclEntry{aclUser, 4, 1000}, aclEntry{aclOwnerGroup, 6, 0}, aclEntry{aclMask, 6, 0}, aclEntry{aclOther, 0, 0}), "user 1000"},
		"a group too many":         {acl(aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclGroup, 0, 7}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 5, 0}), "group 7"},
		"a user more":              {acl(aclEntry{aclUser, 7, 1000}, aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclMask, 7, 0}, aclEntry{aclOther, 5, 0}), "the owning group"},
		"a user more, masked":      {acl(aclEntry{aclUser, 7, 1000}, aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 5, 0}), ""},
		"a group more, not others": {acl(aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclGroup, 1, 7}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 0, 0}), ""},
	} {
		if got := deniedBy(c.acl); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Any program of a node may have set the attribute.
func FuzzDeniedByAnACL(f *testing.F) {
	f.Add(denying)
	f.Add([]byte{2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if whom := deniedBy(b); whom != "" && len(b) < aclHeader+2*aclEntrySize {
			t.Errorf("%x: %s", b, whom)
		}
	})
}

func setACL(t *testing.T, name, attribute string, value []byte) {
	t.Helper()
	err := unix.Setxattr(name, attribute, value, 0)
	if err == unix.ENOTSUP {
		t.Skip("the file system has no ACLs")
	}
	if err != nil {
		t.Fatal(err)
	}
}

const accessACL, defaultACL = "system.posix_acl_access", "system.posix_acl_default"

var denying = acl(aclEntry{aclUser, 0, 1000}, aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 5, 0})

func TestCreateRefusesAVolumeWithADenyingACL(t *testing.T) {
	p := startPod(t)
	journal := acl(aclEntry{aclOwnerGroup, 5, 0}, aclEntry{aclGroup, 5, 4}, aclEntry{aclMask, 5, 0}, aclEntry{aclOther, 5, 0})
	for _, attribute := range []string{accessACL, defaultACL} {
		for _, c := range []struct {
			acl     []byte
			refused bool
		}{{denying, true}, {journal, false}} {
			dir := named(t, "file")
			setACL(t, dir, attribute, c.acl)
			spec := shell(newRootfs(t), "true")
			spec.Mounts = append(spec.Mounts, rbind(dir, "/vol", "rw"))
			id := newID(t)
			err := p.Create(testContext(t), engine.Container{ID: id, Spec: spec})
			switch {
			case !c.refused && err != nil:
				t.Errorf("%s: %v", attribute, err)
			case c.refused && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "user 1000") || !strings.Contains(err.Error(), "/vol")):
				t.Errorf("%s: %v, want FailedPrecondition", attribute, err)
			}
			_ = p.Destroy(testContext(t), id)
		}
	}
}

// What is documented of ACLs in a volume: nothing of them holds, and nobody sees them.
func TestMountIgnoresACLsInAVolume(t *testing.T) {
	p := startPod(t)
	vol := named(t, "denied")
	given := filepath.Join(vol, "given")
	if err := os.WriteFile(given, []byte("given\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setACL(t, filepath.Join(vol, "denied"), accessACL, denying)
	// On the host user 1000 may read the second, and the group, which the bits now say
	// may, may not.
	setACL(t, given, accessACL, acl(aclEntry{aclUser, 4, 1000}, aclEntry{aclOwnerGroup, 0, 0}, aclEntry{aclMask, 4, 0}, aclEntry{aclOther, 0, 0}))
	for _, c := range []struct {
		user specs.User
		want string
	}{{specs.User{UID: 1000, GID: 1000}, "denied\nno given\n"}, {specs.User{UID: 1001, GID: 0}, "denied\ngiven\n"}} {
		spec := shell(newRootfs(t), "cat /vol/denied || echo no denied; cat /vol/given 2>/dev/null || echo no given")
		spec.Process.User, spec.Process.Capabilities = c.user, nil
		spec.Mounts = append(spec.Mounts, rbind(vol, "/vol", "rw"))
		if out, _ := p.run(spec); out != c.want {
			t.Errorf("user %d: %q, want %q", c.user.UID, out, c.want)
		}
	}
}

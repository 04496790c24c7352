package gvisor

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The Sentry decides by mode bits alone who may do what with the host's files: it has
// no way to ask for their POSIX ACLs, and the host, which it asks as root, would not
// decide for anybody else. What an ACL gives beyond the bits is not given. What it takes
// away from them would be given, so that a volume with such an ACL is refused. Only the
// volume itself is looked at, for a file the access ACL, and for a directory the default
// one as well, which new files get. What lies in it may be much, and changes.

// The form of an ACL in an extended attribute: a version, and entries of a tag, bits and
// an id, all in little endian.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8

	aclUser       = 0x02
	aclOwnerGroup = 0x04
	aclGroup      = 0x08
	aclMask       = 0x10
	aclOther      = 0x20
)

// checkACLs refuses mounts of the host's files whose ACLs take rights away.
func checkACLs(mounts []specs.Mount) error {
	for _, m := range mounts {
		if !isGoferMount(m) {
			continue
		}
		for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			whom := deniedBy(readACL(m.Source, name))
			if whom == "" {
				continue
			}
			return fmt.Errorf("mount %s: the POSIX ACL of %s gives %s less than the mode bits show, and a sandbox goes by these alone (docs/kubernetes.md); remove the ACL: %w",
				m.Destination, m.Source, whom, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// readACL returns nothing for what has no such ACL, or cannot be looked at: its mount
// fails, or the file system has none.
func readACL(source, name string) []byte {
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	acl := make([]byte, 64<<10) // the most that an attribute can have
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", fd), name, acl)
	if err != nil {
		return nil
	}
	return acl[:n]
}

// deniedBy names somebody who has less by an ACL than by the mode bits that go with it,
// or returns "". The bits of the group are the ACL's mask, those of others are its own.
// A user who is named may be in the group.
func deniedBy(acl []byte) string {
	if len(acl) < aclHeader || binary.LittleEndian.Uint32(acl) != aclVersion {
		return ""
	}
	type entry struct {
		tag, bits uint16
		id        uint32
	}
	var entries []entry
	var mask, other uint16
	extended := false
	for b := acl[aclHeader:]; len(b) >= aclEntrySize; b = b[aclEntrySize:] {
		e := entry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		switch e.tag {
		case aclMask:
			mask, extended = e.bits, true
		case aclOther:
			other = e.bits
		default:
			entries = append(entries, e)
		}
	}
	if !extended {
		return "" // it says what the bits say
	}
	for _, e := range entries {
		switch has := e.bits & mask; {
		case e.tag == aclOwnerGroup && has != mask:
			return "the owning group"
		case e.tag == aclUser && (mask|other)&^has != 0:
			return fmt.Sprintf("user %d", e.id)
		case e.tag == aclGroup && other&^has != 0:
			return fmt.Sprintf("group %d", e.id)
		}
	}
	return ""
}

package gvisor

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// fdStoreMessage is what one message in the queue of an fd store says. All of it comes from
// a socket that the sandbox process can write to.
type fdStoreMessage struct {
	name    string
	fds     []int
	foreign bool // in a form that no daemon sends
}

const (
	// markPrefix begins the names of the messages that say where a turn began. No
	// id has it.
	markPrefix = "\x00"
	// maxFDStoreName is the longest: the id of a container and a name.
	maxFDStoreName = 256
	// maxFDStoreFiles are what a container prints to.
	maxFDStoreFiles = 2
	// maxFDStoreControl holds all that the kernel lets anybody send beside a
	// message: 253 descriptors, and what a socket can be told to add.
	maxFDStoreControl = 8 << 10
)

// valid reports whether a message can be one of a daemon's, with descriptors that
// a daemon may use: it can be sent again, and given out.
func (m fdStoreMessage) valid() bool {
	if m.foreign || m.name == "" || strings.HasPrefix(m.name, markPrefix) || len(m.fds) == 0 || len(m.fds) > maxFDStoreFiles {
		return false
	}
	for _, r := range m.name {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	for _, fd := range m.fds {
		if !isStream(fd) {
			return false
		}
	}
	return true
}

// parseFDStoreMessage never fails: every descriptor that came has to be found, as
// it is this daemon's now and has to be closed.
func parseFDStoreMessage(text, control []byte) fdStoreMessage {
	m := fdStoreMessage{name: string(text)}
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, c := range messages {
		switch {
		case c.Header.Level != unix.SOL_SOCKET:
		case c.Header.Type == unix.SCM_RIGHTS:
			fds, _ := unix.ParseUnixRights(&c)
			m.fds = append(m.fds, fds...)
		case c.Header.Type == scmPidfd && len(c.Data) >= 4:
			m.fds = append(m.fds, int(int32(binary.NativeEndian.Uint32(c.Data))))
			m.foreign = true
		}
	}
	return m
}

// scmPidfd carries a pidfd of the sender, on sockets with SO_PASSPIDFD.
const scmPidfd = 4

// isStream reports whether a descriptor is of the only files that are kept: pipes
// (FIFOs among them), the master sides of terminals, and /dev/null, where a
// container's output may go. What else there is, such as a socket or a file on a
// network, could keep a daemon that reads or only closes it.
func isStream(fd int) bool {
	var st unix.Statx_t
	// Without asking its file system, which may not answer.
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
		return err == nil // else the path of one, opened for nothing
	case unix.S_IFCHR:
		switch [2]uint32{st.Rdev_major, st.Rdev_minor} {
		case [2]uint32{1, 3}: // /dev/null
			return true
		case [2]uint32{5, 2}: // /dev/ptmx
			_, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
			return err == nil
		}
	}
	return false
}

package gvisor

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/crashpoint"
)

// keeper keeps the standard descriptors of a sandbox's containers open as long
// as the sandbox process lives, whoever else dies. The kernel frees a FIFO with
// its last descriptor: when a container ends while no daemon runs, what it
// printed last would be lost. A terminal hangs up with its master side, which no
// process of the sandbox has.
//
// Both ends of a socket pair are born with the sandbox process, which does not
// know of them. A message in their queue carries a container's descriptors, and
// is never received by anybody but a daemon that drops it: descriptors in flight
// are open, unix(7). The next daemon takes both ends with pidfd_getfd(2).
type keeper struct {
	mu   sync.Mutex
	in   *os.File // messages are sent on this end
	hold *os.File // and stay in the queue of this one
}

// keeperFDs are the numbers of both ends in the sandbox process: the first that
// are donated.
var keeperFDs = [2]int{3, 4}

// keeperMessage is the largest: the id of a container and a name.
const keeperMessage = 256

func newKeeper() (*keeper, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket pair: %w", err)
	}
	return &keeper{in: os.NewFile(uintptr(fds[0]), "keeper"), hold: os.NewFile(uintptr(fds[1]), "keeper")}, nil
}

// adoptKeeper takes the ends from a sandbox process. One of an older daemon has
// none: the error is errdefs.ErrNotFound then.
func adoptKeeper(p *process) (*keeper, error) {
	pidfd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	defer unix.Close(pidfd)
	var ends [2]*os.File
	for i, n := range keeperFDs {
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			closeAll(ends[:])
			return nil, fmt.Errorf("take descriptor %d of process %d: %w", n, p.pid, err)
		}
		ends[i] = os.NewFile(uintptr(fd), "keeper")
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
			closeAll(ends[:])
			return nil, fmt.Errorf("descriptor %d of process %d is no keeper's: %w", n, p.pid, errdefs.ErrNotFound)
		}
	}
	return &keeper{in: ends[0], hold: ends[1]}, nil
}

// donate gives both ends to the child. It must be the first donation.
func (k *keeper) donate(d *donation) { d.files = append(d.files, k.in, k.hold) }

// keep holds descriptors under a name until drop, or the end of the sandbox.
func (k *keeper) keep(name string, files []*os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	fds := make([]int, len(files))
	for i, f := range files {
		fd, err := rawFD(f)
		if err != nil {
			return err
		}
		fds[i] = fd
	}
	crashpoint.Here("before descriptors are kept")
	return k.sendLocked(name, fds)
}

func (k *keeper) sendLocked(name string, fds []int) error {
	sock, err := rawFD(k.in)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(sock, []byte(name), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("keep descriptors of %q: %w", name, err)
	}
	return nil
}

// drop lets go of the descriptors whose names match.
func (k *keeper) drop(match func(name string) bool) error {
	return k.turn(func(name string, _ []int) bool { return !match(name) })
}

// find returns another descriptor of the file that is kept under a name, or
// errdefs.ErrNotFound.
func (k *keeper) find(name string) (*os.File, error) {
	var found *os.File
	err := k.turn(func(n string, fds []int) bool {
		if n == name && len(fds) > 0 && found == nil {
			if fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 3); err == nil {
				found = os.NewFile(uintptr(fd), name)
			}
		}
		return true
	})
	if err == nil && found == nil {
		err = fmt.Errorf("it is not kept: %w", errdefs.ErrNotFound)
	}
	if err != nil && found != nil {
		found.Close()
		found = nil
	}
	return found, err
}

// markPrefix begins the messages that say where a turn began. No id has it.
const markPrefix = "\x00"

// turn goes once around the queue and asks of each message whether it is kept. A
// message is sent again before it is taken out, so that a daemon killed in
// between leaves one too many, never one too few. A mark says where the turn
// ends; one that an earlier daemon left is taken out.
func (k *keeper) turn(keep func(name string, fds []int) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	mark := markPrefix + rand.Text()
	if err := k.sendLocked(mark, nil); err != nil {
		return err
	}
	for {
		name, fds, err := k.receiveLocked(unix.MSG_PEEK)
		if err != nil {
			return fmt.Errorf("read kept descriptors: %w", err)
		}
		if !strings.HasPrefix(name, markPrefix) && keep(name, fds) {
			err = k.sendLocked(name, fds)
		}
		crashpoint.Here("between two kept descriptors")
		closeFDs(fds)
		if err != nil {
			return err
		}
		_, taken, err := k.receiveLocked(0)
		closeFDs(taken)
		if err != nil {
			return fmt.Errorf("take kept descriptors: %w", err)
		}
		if name == mark {
			return nil
		}
	}
}

func (k *keeper) receiveLocked(flags int) (name string, fds []int, err error) {
	sock, err := rawFD(k.hold)
	if err != nil {
		return "", nil, err
	}
	buf, oob := make([]byte, keeperMessage), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := unix.Recvmsg(sock, buf, oob, flags|unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return "", nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return "", nil, err
	}
	for _, m := range msgs {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	return string(buf[:n]), fds, nil
}

// close lets go of this daemon's copies; the sandbox process has its own.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.in.Close()
	k.hold.Close()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

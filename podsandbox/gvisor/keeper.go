package gvisor

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// keeper keeps the standard descriptors of a sandbox's containers open as long
// as the sandbox process lives, whoever else dies. The kernel frees a FIFO with
// its last descriptor: when a container ends while no daemon runs, what it
// printed last would be lost.
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

// keeperMessage is the largest: the id of a container.
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

// keep holds a container's descriptors until drop, or the end of the sandbox.
func (k *keeper) keep(id string, files []*os.File) error {
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
	return k.sendLocked(id, fds)
}

func (k *keeper) sendLocked(id string, fds []int) error {
	sock, err := rawFD(k.in)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(sock, []byte(id), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("keep descriptors of container %s: %w", id, err)
	}
	return nil
}

// drop lets go of a container's descriptors. The queue is turned once around;
// a message is sent again before it is taken out, so that a daemon killed in
// between leaves one too many, never one too few.
func (k *keeper) drop(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := ""
	for {
		name, fds, err := k.receiveLocked(unix.MSG_PEEK)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read kept descriptors: %w", err)
		}
		if name == first {
			closeFDs(fds)
			return nil // once around
		}
		if name != id {
			if first == "" {
				first = name
			}
			err = k.sendLocked(name, fds)
		}
		closeFDs(fds)
		if err != nil {
			return err
		}
		_, taken, err := k.receiveLocked(0)
		closeFDs(taken)
		if err != nil {
			return fmt.Errorf("take kept descriptors: %w", err)
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

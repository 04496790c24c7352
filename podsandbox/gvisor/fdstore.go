package gvisor

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// fdStore keeps the standard descriptors of a sandbox's containers open as long
// as the sandbox process lives, whoever else dies. The kernel frees a FIFO with
// its last descriptor: when a container ends while no daemon runs, what it
// printed last would be lost. A terminal hangs up with its master side, which no
// process of the sandbox has.
//
// Both ends of a socket pair are born with the sandbox process, which does not
// know of them. A message in their queue carries a container's descriptors, and
// is never received by anybody but a daemon that drops it: descriptors in flight
// are open, unix(7). The next daemon takes both ends with pidfd_getfd(2).
//
// A sandbox process that has been taken over does know of them. It can fill the
// queue, steal from it, put anything into it and change how the sockets behave.
// So nothing here blocks if the kernel has a way not to, a turn around the queue is
// bounded, and what is not a message of this file is dropped (see fdstoremsg.go). The
// kernel has not always a way: it waits for whoever receives into memory that does
// not come, or for a file system when a file of it is closed. An operation that
// takes too long is therefore left alone, and is the store's last one.
type fdStore struct {
	in   *os.File // messages are sent on this end
	hold *os.File // and stay in the queue of this one

	turnLock chan struct{} // filled while an operation is under way
	lost     chan struct{} // closed when one did not end in time
}

// fdStorePatience is how long one operation may take. They take microseconds.
const fdStorePatience = 2 * time.Second

// maxTurn is how many messages are looked at in one turn. The kernel's default
// buffer holds about 280.
const maxTurn = 4096

// fdStoreFDs are the numbers of both ends in the sandbox process: the first that
// are donated.
var fdStoreFDs = [2]int{3, 4}

func newFDStore() (*fdStore, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket pair: %w", err)
	}
	return fdStoreOf(os.NewFile(uintptr(fds[0]), "fd store"), os.NewFile(uintptr(fds[1]), "fd store")), nil
}

func fdStoreOf(in, hold *os.File) *fdStore {
	return &fdStore{in: in, hold: hold, turnLock: make(chan struct{}, 1), lost: make(chan struct{})}
}

// adoptFDStore takes the ends from a sandbox process. One of an older daemon has
// none: the error is errdefs.ErrNotFound then.
func adoptFDStore(p *process) (*fdStore, error) {
	var ends [2]*os.File
	for i, n := range fdStoreFDs {
		fd, err := p.takeFD(n)
		if err != nil {
			go closeAll(ends[:])
			return nil, err
		}
		ends[i] = os.NewFile(uintptr(fd), "fd store")
		if !isFDStoreSocket(fd) {
			go closeAll(ends[:]) // of a file that is not known, and may block
			return nil, fmt.Errorf("descriptor %d of process %d is no fd store's: %w", n, p.pid, errdefs.ErrNotFound)
		}
	}
	return fdStoreOf(ends[0], ends[1]), nil
}

// isFDStoreSocket keeps what the daemon sends on this node.
func isFDStoreSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return false
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_UNIX
}

// donate gives both ends to the child. It must be the first donation.
func (k *fdStore) donate(d *donation) { d.files = append(d.files, k.in, k.hold) }

// do runs one operation at a time and bounds how long its caller waits.
func (k *fdStore) do(operation func() error) error {
	patience := time.NewTimer(fdStorePatience)
	defer patience.Stop()
	select {
	case <-k.lost:
		return errFDStoreLost
	default:
	}
	select {
	case k.turnLock <- struct{}{}:
	case <-k.lost:
		return errFDStoreLost
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-k.turnLock }()
		done <- operation()
	}()
	select {
	case err := <-done:
		return err
	case <-patience.C:
		close(k.lost) // this caller alone has the lock
		return errFDStoreLost
	}
}

var errFDStoreLost = fmt.Errorf("what the sandbox process holds cannot be reached: %w", errdefs.ErrUnavailable)

// keep holds descriptors under a name until drop, or the end of the sandbox.
func (k *fdStore) keep(name string, files []*os.File) error {
	fds, err := copyFDs(files) // the operation may outlive this call
	if err != nil {
		return err
	}
	return k.do(func() error {
		defer fds.close()
		crashpoint.Here("before descriptors are kept")
		return k.send(fdStoreMessage{name: name, fds: fds})
	})
}

// drop lets go of the descriptors whose names match.
func (k *fdStore) drop(match func(name string) bool) error {
	return k.turn(func(name string, _ []int) bool { return !match(name) })
}

// find returns another descriptor of the file that is kept under a name, or
// errdefs.ErrNotFound.
func (k *fdStore) find(name string) (*os.File, error) {
	found := make(chan *os.File, 1)
	err := k.turn(func(n string, fds []int) bool {
		if n == name && len(fds) > 0 && len(found) == 0 {
			if fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 3); err == nil {
				found <- os.NewFile(uintptr(fd), name)
			}
		}
		return true
	})
	select {
	case f := <-found:
		if err != nil {
			go f.Close() // may block; see fdStore
			return nil, err
		}
		return f, nil
	default:
	}
	if err == nil {
		err = fmt.Errorf("it is not kept: %w", errdefs.ErrNotFound)
	}
	return nil, err
}

// turn goes once around the queue and asks of each message whether it is kept. A
// message is sent again before it is taken out, so that a daemon killed in
// between leaves one too many, never one too few. A mark says where the turn
// ends; one that an earlier daemon left is taken out.
func (k *fdStore) turn(keep func(name string, fds []int) bool) error {
	return k.do(func() error {
		mark := markPrefix + rand.Text()
		if err := k.send(fdStoreMessage{name: mark}); err != nil {
			return err
		}
		for range maxTurn {
			m, err := k.receive(unix.MSG_PEEK)
			if err != nil {
				return fmt.Errorf("read kept descriptors: %w", err)
			}
			if m.valid() && keep(m.name, m.fds) {
				err = k.send(m)
			}
			crashpoint.Here("between two kept descriptors")
			closeFDs(m.fds)
			if err != nil {
				return err
			}
			taken, err := k.receive(0)
			if err != nil {
				return fmt.Errorf("take kept descriptors: %w", err)
			}
			closeFDs(taken.fds)
			if m.name == mark {
				return nil
			}
		}
		return fmt.Errorf("read kept descriptors: there is no end of them: %w", errdefs.ErrUnavailable)
	})
}

// send puts a message at the end of the queue, unless that is full.
func (k *fdStore) send(m fdStoreMessage) error {
	var rights []byte
	if len(m.fds) > 0 {
		rights = unix.UnixRights(m.fds...)
	}
	err := control(k.in, func(sock int) error {
		return unix.Sendmsg(sock, []byte(m.name), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	if err != nil {
		return fmt.Errorf("keep descriptors of %q: %w: %w", m.name, err, errdefs.ErrUnavailable)
	}
	return nil
}

// receive returns the message at the head of the queue. The caller closes its
// descriptors, also if it is not valid.
func (k *fdStore) receive(flags int) (m fdStoreMessage, err error) {
	text, oob := make([]byte, maxFDStoreName), make([]byte, maxFDStoreControl)
	var n, oobn, got int
	err = control(k.hold, func(sock int) error {
		n, oobn, got, _, err = unix.Recvmsg(sock, text, oob, flags|unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return err
	})
	if err != nil {
		return m, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	m = parseFDStoreMessage(text[:n], oob[:oobn])
	if got&unix.MSG_CTRUNC != 0 {
		// The buffer takes all that can be sent: this daemon may not open more.
		closeFDs(m.fds)
		return fdStoreMessage{}, fmt.Errorf("%w: %w", unix.EMFILE, errdefs.ErrResourceExhausted)
	}
	m.foreign = m.foreign || got&unix.MSG_TRUNC != 0
	return m, nil
}

// close lets go of this daemon's copies; the sandbox process has its own.
func (k *fdStore) close() {
	closing := func() { k.in.Close(); k.hold.Close() }
	if err := k.do(func() error { closing(); return nil }); err != nil {
		go closing() // waits for what the lost operation still does with them
	}
}

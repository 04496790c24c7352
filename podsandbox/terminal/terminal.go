// Package terminal is the daemon's side of a terminal that programs in a sandbox
// run on: a pseudo-terminal of the host, whose slave side is theirs and whose
// master side is held here.
//
// The host's line discipline edits, echoes and keeps the size. It also swallows
// the characters that stand for signals, but it knows no process of the sandbox
// to send them to: InputWriter watches for them and says which signal is due.
//
// The package owns the master side, and the way of what is printed up to a pipe.
// It does not own who types, who reads, or how a signal reaches the sandbox.
//
// Invariant: what is printed is moved into a pipe by splice(2) alone, so no byte
// of it is ever only in the daemon's memory. Linux 5.11 or newer is needed, where
// a terminal can be spliced.
package terminal

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Size is that of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// Terminal is the master side. All methods are safe for concurrent use.
type Terminal struct {
	master *os.File        // in the runtime's poller
	conn   syscall.RawConn // of master

	relay *relay // nil until Relay
}

// Open makes a terminal and returns its slave side, too. The caller hands that on
// and closes its own copy: only then the end of the other side can be seen.
func Open() (_ *Terminal, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	if slave, err = openSlave(fd); err != nil {
		master.Close()
		return nil, nil, err
	}
	t, err := Adopt(master)
	if err != nil {
		slave.Close()
		return nil, nil, err
	}
	return t, slave, nil
}

func openSlave(master int) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	return openPeer(master)
}

// openPeer opens the other side by the master and not by its path, which means
// another terminal where devpts is mounted anew.
func openPeer(master int) (*os.File, error) {
	flags := uintptr(unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC)
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return nil, fmt.Errorf("open terminal's other side: %w", errno)
	}
	return os.NewFile(fd, "terminal's other side"), nil
}

// Adopt takes over the master side of a terminal that was opened before, maybe by
// another process. It owns the file, also on error. Another file is InvalidArgument.
func Adopt(master *os.File) (*Terminal, error) {
	if err := checkMaster(master); err != nil {
		master.Close()
		return nil, fmt.Errorf("take over terminal: %w", err)
	}
	file, err := pollable(master)
	if err != nil {
		return nil, fmt.Errorf("take over terminal: %w", err)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("take over terminal: %w", err)
	}
	return &Terminal{master: file, conn: conn}, nil
}

// checkMaster keeps a file that is no terminal from being read as one: what
// sandboxes held for their containers is not trusted.
func checkMaster(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { _, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN) })
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("%s is no master side: %w: %w", f.Name(), err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// pollable returns the same open file as a non-blocking one that the runtime's
// poller watches. It closes f.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = conn.Control(func(p uintptr) {
		if fd, dupErr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3); dupErr == nil {
			dupErr = unix.SetNonblock(fd, true)
		}
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Master is the master side, for the engine to hold. It stays the Terminal's.
func (t *Terminal) Master() *os.File { return t.master }

// Read reads what was printed on a terminal that has no relay. Once the other
// side is closed everywhere and all was read, the error is EIO.
func (t *Terminal) Read(b []byte) (int, error) { return t.master.Read(b) }

// SetReadDeadline bounds Read.
func (t *Terminal) SetReadDeadline(at time.Time) error { return t.master.SetReadDeadline(at) }

// Resize sets the size. A size of nothing, which clients send when they know none,
// is no error and changes nothing. The caller sends SIGWINCH if it returns true.
func (t *Terminal) Resize(s Size) (changed bool, err error) {
	if s.Rows == 0 || s.Columns == 0 {
		return false, nil
	}
	cerr := t.conn.Control(func(fd uintptr) {
		var old *unix.Winsize
		if old, err = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err != nil {
			return
		}
		if changed = old.Row != s.Rows || old.Col != s.Columns; changed {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
		}
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		return false, fmt.Errorf("resize terminal: %w", err)
	}
	return changed, nil
}

// closePatience is how long Close waits for what is under way. It takes no time.
const closePatience = 2 * time.Second

// Close lets go of the master side; where nobody else holds it, the other side is
// hung up. A relay ends first. It is idempotent.
//
// A sandbox that holds the master side has the same open file and can make it
// block. What reads it then ends with the sandbox, and Close does not wait for that.
func (t *Terminal) Close() error {
	closed := make(chan error, 1)
	go func() {
		if t.relay != nil {
			t.relay.halt()
		}
		err := t.master.Close()
		if t.relay != nil {
			t.relay.close()
		}
		closed <- err
	}()
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case err := <-closed:
		return err
	case <-patience.C:
		return fmt.Errorf("close terminal: it is made to block: %w", errdefs.ErrUnavailable)
	}
}

package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

const (
	// pipeSize is what a FIFO is set to hold, and the most that one splice
	// takes, in bytes. It is the kernel's default ceiling.
	pipeSize = 1 << 20

	// cutSize is how large a spool must be to be worth cutting when all of it
	// is done. It is what an idle stream may leave behind.
	cutSize = 64 << 10
)

// stream is one FIFO and its spool.
type stream struct {
	index int
	fifo  *os.File        // read-write, so it never sees an end; in the runtime's poller
	conn  syscall.RawConn // of fifo
	spool *os.File        // or /dev/null without a log
	size  int64           // of the spool; guarded by Streams.mu
}

func spoolPath(dir string, index int) string {
	return filepath.Join(dir, streamNames[index]+".spool")
}

// openStream opens what lies on disk for one stream. A FIFO or spool that is
// not there is errdefs.ErrNotFound.
func openStream(cfg Config, index int) (*stream, error) {
	st := &stream{index: index}
	fd, err := openFIFO(filepath.Join(cfg.Dir, streamNames[index]), unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	st.fifo = os.NewFile(uintptr(fd), streamNames[index])
	growPipe(fd)
	name, flags := spoolPath(cfg.Dir, index), os.O_RDWR
	if cfg.LogPath == "" {
		name, flags = os.DevNull, os.O_WRONLY
	}
	if st.conn, err = st.fifo.SyscallConn(); err == nil {
		st.spool, err = os.OpenFile(name, flags, 0)
	}
	if err == nil && cfg.LogPath != "" {
		st.size, err = st.spool.Seek(0, 2)
	}
	if err != nil {
		st.close()
		return nil, fmt.Errorf("open spool: %w", classify(err))
	}
	return st, nil
}

func (st *stream) close() {
	st.fifo.Close()
	if st.spool != nil {
		st.spool.Close()
	}
}

// take moves what the FIFO holds to the end of the spool and returns the number
// of bytes, or EAGAIN when it is empty. The caller holds Streams.mu.
func (st *stream) take(fd, limit int) (int, error) {
	for {
		offset := st.size
		crashpoint.Here("before log take")
		n, err := unix.Splice(fd, nil, int(st.spool.Fd()), &offset, limit, unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("splice", err)
		}
		if n == 0 { // not on a pipe that we hold open for writing
			return 0, unix.EAGAIN
		}
		crashpoint.Here("after log take")
		st.size += n
		return int(n), nil
	}
}

// makeFIFO makes a FIFO that only root may open; one that is there is kept.
func makeFIFO(path string) error {
	err := unix.Mkfifo(path, 0o600)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create fifo %s: %w", path, err)
	}
	return nil
}

// openFIFO opens a FIFO for reading and writing, so that it never lacks the
// other side: no open blocks, no writer sees EPIPE, no reader an end.
func openFIFO(path string, flags int) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("open fifo %s: %w", path, classify(err))
	}
	if err := checkFIFO(fd, path); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func checkFIFO(fd int, path string) error {
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("open fifo %s: not a fifo: %w", path, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// growPipe sets a pipe to pipeSize, or to as much as the node allows. A smaller
// pipe is slower and otherwise as good, so there is no error.
func growPipe(fd int) {
	for size := pipeSize; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size); err == nil {
			return
		}
	}
}

func classify(err error) error {
	if os.IsNotExist(err) {
		return errdefs.ErrNotFound
	}
	return err
}

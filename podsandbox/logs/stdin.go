package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The container has the reading end of the stdin FIFO and sees its end when
// nobody has it open for writing. So somebody must, from before the container
// starts and whether a daemon runs or not, for as long as input may come: the
// caller gives a writing end to the sandbox to hold.

// Input opens a writing end of the container's stdin, in the runtime's poller. The
// caller closes it. errdefs.ErrNotFound means that there is no stdin, or that
// EndInput was called; ErrFailedPrecondition that the container does not have it
// open: it was not started, or has closed it.
func (s *Streams) Input() (*os.File, error) {
	path := s.stdinPath()
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("open stdin: the container does not read it: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", classify(err))
	}
	if err := checkFIFO(fd, path); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), stdinName), nil
}

// EndInput makes sure that no further Input succeeds, now and after a restart. The
// container sees the end once the writing ends that are open have been closed. It
// is idempotent.
func (s *Streams) EndInput() error {
	if err := os.Remove(s.stdinPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end stdin: %w", err)
	}
	return nil
}

// InputEnded tells whether EndInput was called, by this daemon or an earlier one.
func (s *Streams) InputEnded() bool {
	_, err := os.Lstat(s.stdinPath())
	return s.cfg.Stdin && errors.Is(err, os.ErrNotExist)
}

func (s *Streams) stdinPath() string { return filepath.Join(s.cfg.Dir, stdinName) }

// openStdin opens the container's end. It does not wait for a writer, but reads
// from it do.
func openStdin(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open fifo %s: %w", path, classify(err))
	}
	err = checkFIFO(fd, path)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

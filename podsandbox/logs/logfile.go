package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// openLog opens the log for positioned writes, and makes it and its directories
// when absent. Not for appending: Linux ignores the offset of a positioned
// write to a file opened so. A container may be able to write to the directory, so
// nothing below it leads out of it, and the log itself is no link: a symbolic link
// or a file that is not regular is errdefs.ErrFailedPrecondition.
func openLog(directory, path string) (*os.File, error) {
	if directory == "" {
		directory = filepath.Dir(path)
	}
	name, err := filepath.Rel(directory, path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	defer root.Close()
	file, err := openBelow(root, name)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", classifyOpen(err))
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return file, nil
}

// classifyOpen finds what others have put in the log's place or on the way to it.
func classifyOpen(err error) error {
	errno := syscall.Errno(0)
	switch {
	case !errors.As(err, &errno), errno == unix.ELOOP: // package os has no name for a link that leads out
		return fmt.Errorf("%w; no link may lead out of the pod's log directory: %w", err, errdefs.ErrFailedPrecondition)
	case errno == unix.EISDIR, errno == unix.ENXIO: // a directory, a FIFO or a socket
		return fmt.Errorf("not a regular file: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// openBelow makes and opens a file. Package os follows a link at the end of a name,
// whatever flags it is given, so the last step is taken without it.
func openBelow(root *os.Root, name string) (*os.File, error) {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), filepath.Base(name), flags, 0o640)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(root.Name(), name)), nil
}

// identify returns a file's identity and its size in bytes.
func identify(file *os.File) (fileID, int64, error) {
	info, err := file.Stat()
	if err != nil {
		return fileID{}, 0, fmt.Errorf("stat log: %w", err)
	}
	return idOf(info), info.Size(), nil
}

func idOf(info os.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{dev: st.Dev, ino: st.Ino}
}

// findLog opens the file with this identity: the log itself, or what the
// kubelet renamed it to, LOG.<time>. It returns nil when there is none.
func findLog(path string, id fileID) *os.File {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || idOf(info) != id {
			continue
		}
		// Its place may have been taken meanwhile, by a FIFO that nobody reads.
		file, err := os.OpenFile(filepath.Join(filepath.Dir(path), e.Name()), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if got, _, err := identify(file); err == nil && got == id {
			return file
		}
		file.Close()
	}
	return nil
}

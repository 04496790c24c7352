package gvisor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A file's descriptor is a number, which means another file as soon as the file is
// closed. It is used inside of control alone, and what outlives that has a copy.

// control runs fn with the number of a file's descriptor, which stays open meanwhile.
// Unlike File.Fd it does not switch a file that its owner polls to blocking mode.
func control(f *os.File, fn func(fd int) error) error {
	if f == nil {
		return os.ErrInvalid
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if rc.Control(func(fd uintptr) { err = fn(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return err
}

// fdCopies are copies of descriptors, to be sent or donated. They stay open until
// close, whatever becomes of the files that they are copies of.
type fdCopies []int

func copyFDs(files []*os.File) (fdCopies, error) {
	copies := make(fdCopies, 0, len(files))
	for i, f := range files {
		err := control(f, func(fd int) error {
			c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			if err == nil {
				copies = append(copies, c)
			}
			return err
		})
		if err != nil {
			copies.close()
			return nil, fmt.Errorf("duplicate descriptor %d (%s): %w", i, nameOf(f), err)
		}
	}
	return copies, nil
}

func (c fdCopies) close() { closeFDs(c) }

func nameOf(f *os.File) string {
	if f == nil {
		return "no file"
	}
	return f.Name()
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

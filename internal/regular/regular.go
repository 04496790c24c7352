// Package regular reads files that somebody else put where they are: what a
// request, an image, a vendor or an operator names by a path. Such a path may lead
// to anything, and opening a FIFO waits for a writer, opening a device can act on
// it (a watchdog is armed by it), and reading either may never end. So a file is
// first held without being opened, then looked at, and opened only if it is
// regular; it is read up to a limit.
//
// Links are followed: many a configuration is one. It has no state and nothing on
// disk. All functions are safe for concurrent use.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is wrapped by the refusal of what is there and no regular file.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is wrapped by the refusal of a file with more bytes than the limit.
var ErrTooLarge = errors.New("larger than the limit")

// Read returns the bytes of the regular file at path, at most limit. Its errors
// name the path and wrap ErrNotRegular, ErrTooLarge or what the system says.
func Read(path string, limit int64) ([]byte, error) {
	held, err := hold(path)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	return ReadHeld(held, limit)
}

// ReadHeld is Read for a file that is held by an O_PATH descriptor already, which
// stays the caller's. The errors have the descriptor's name.
func ReadHeld(held *os.File, limit int64) ([]byte, error) {
	if err := check(held, limit); err != nil {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", held.Name(), errors.Unwrap(err))
	}
	defer f.Close()
	// Not by its size alone: files of procfs have none, and others may grow.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", held.Name(), err)
	}
	if int64(len(data)) > limit {
		return nil, tooLarge(held.Name(), limit)
	}
	return data, nil
}

// Check says whether Read would open the file at path, for a library that opens it
// itself.
func Check(path string, limit int64) error {
	held, err := hold(path)
	if err != nil {
		return err
	}
	defer held.Close()
	return check(held, limit)
}

// hold opens without opening: no driver hears of it.
func hold(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func check(held *os.File, limit int64) error {
	info, err := held.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is %w", held.Name(), ErrNotRegular)
	case info.Size() > limit:
		return tooLarge(held.Name(), limit)
	}
	return nil
}

func tooLarge(name string, limit int64) error {
	return fmt.Errorf("%s is %w, which is %d bytes", name, ErrTooLarge, limit)
}

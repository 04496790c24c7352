package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// maxOpen bounds the descriptors that one walk over a tree holds, whatever the
// depth of the tree.
const maxOpen = 64

// directory is an open directory of a tree that a container or an image made. Such a
// tree is gone through by descriptor: a path leads elsewhere as soon as somebody
// puts a symbolic link in its way, and ends at PATH_MAX.
type directory struct {
	fd   int
	stat unix.Stat_t
	buf  *[8 << 10]byte // bounds what is kept of a directory with many entries
	rest []byte         // of buf: entries that next has not given yet
	pos  int64          // where reading goes on behind the last given entry
}

var directoryBuffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

// openDir opens a directory below the one that is open as at, or above it: "..". It
// goes through no symbolic link at the end of name, and never to another mount.
func openDir(at int, name string) (*directory, error) {
	return openHow(at, name, unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_SYMLINKS)
}

// openRoot opens the directory in which a tree begins; its path is our own.
func openRoot(path string) (*directory, error) { return openHow(unix.AT_FDCWD, path, 0) }

func openHow(at int, name string, resolve uint64) (*directory, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolve}
	fd, err := retry(func() (int, error) { return unix.Openat2(at, name, &how) })
	if err != nil {
		return nil, err
	}
	d := &directory{fd: fd}
	if err := unix.Fstat(fd, &d.stat); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func (d *directory) close() {
	if d.buf != nil {
		directoryBuffers.Put(d.buf)
	}
	d.buf, d.rest = nil, nil
	_ = unix.Close(d.fd)
}

// next gives the name of the next entry, "" at the end.
func (d *directory) next() (string, error) {
	const header = 8 + 8 + 2 + 1 // inode, offset, length, type; getdents64(2)
	for {
		if len(d.rest) == 0 {
			if err := d.fill(); err != nil || len(d.rest) == 0 {
				return "", err
			}
		}
		size := 0
		if len(d.rest) > header {
			size = int(binary.NativeEndian.Uint16(d.rest[16:]))
		}
		if size <= header || size > len(d.rest) {
			return "", fmt.Errorf("read directory: entry of %d bytes", size)
		}
		d.pos = int64(binary.NativeEndian.Uint64(d.rest[8:]))
		name := unix.ByteSliceToString(d.rest[header:size])
		d.rest = d.rest[size:]
		if name != "." && name != ".." {
			return name, nil
		}
	}
}

// buffered is whether next can do without the file system.
func (d *directory) buffered() bool { return len(d.rest) > 0 }

func (d *directory) fill() error {
	if d.buf == nil {
		d.buf = directoryBuffers.Get().(*[8 << 10]byte)
	}
	n, err := retry(func() (int, error) { return unix.Getdents(d.fd, d.buf[:]) })
	if errors.Is(err, unix.ENOENT) {
		n, err = 0, nil // removed since it was opened
	}
	d.rest = d.buf[:max(n, 0)]
	return err
}

// seek makes next go on at a place that pos named before.
func (d *directory) seek(pos int64) error {
	_, err := unix.Seek(d.fd, pos, unix.SEEK_SET)
	d.pos, d.rest = pos, nil
	return err
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

package cgroup

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// MemoryReader reads the memory of a group from files that it keeps open: a microsecond
// instead of some twenty. It does not keep the group from being removed, and finds one
// that was made anew. It is for one goroutine at a time.
type MemoryReader struct {
	group       *Group
	usage, stat int // descriptors; -1 when not open
	buf         [8192]byte
}

// OpenMemory returns a reader of the group's memory; the caller closes it.
func (g *Group) OpenMemory() *MemoryReader { return &MemoryReader{group: g, usage: -1, stat: -1} }

// Top is the group below the root in which the group is, or the group itself.
func (g *Group) Top() *Group {
	top, _, _ := strings.Cut(strings.TrimPrefix(g.path, "/"), "/")
	return &Group{host: g.host, place: place{path: "/" + top}}
}

// Close gives its descriptors back.
func (r *MemoryReader) Close() {
	for _, fd := range []*int{&r.usage, &r.stat} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// Usage is Stats.MemoryUsage. A node that does not count it is errdefs.ErrNotFound, as a
// group that is gone.
func (r *MemoryReader) Usage() (uint64, error) {
	name := "memory.current"
	if r.group.host.version == 1 {
		name = "memory.usage_in_bytes"
	}
	text, err := r.read(&r.usage, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s of cgroup %s: %w", name, r.group.path, err)
	}
	return n, nil
}

// Held is the part of Usage that the kernel cannot drop, as it can the page cache: anonymous
// memory and what lies in memory files. Errors as of Usage.
func (r *MemoryReader) Held() (uint64, error) {
	anon, shmem := []byte("anon "), []byte("shmem ")
	if r.group.host.version == 1 {
		anon, shmem = []byte("total_rss "), []byte("total_shmem ")
	}
	text, err := r.read(&r.stat, "memory.stat")
	if err != nil {
		return 0, err
	}
	var sum uint64
	for line := range bytes.Lines(text) {
		for _, key := range [][]byte{anon, shmem} {
			if value, ok := bytes.CutPrefix(line, key); ok {
				n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
				sum += n
			}
		}
	}
	return sum, nil
}

// Ceiling is the tightest memory limit of the group and those above it; 0 is none.
func (r *MemoryReader) Ceiling() (limit uint64) {
	for at := r.group.path; ; at = path.Dir(at) {
		level := Group{host: r.group.host, place: place{path: at}}
		if m := uint64(level.memoryLimit()); m > 0 && (limit == 0 || m < limit) {
			limit = m
		}
		if at == "/" {
			return limit
		}
	}
}

// read reads a file from its open descriptor; when that is of a group that is gone, from
// a new one.
func (r *MemoryReader) read(fd *int, name string) ([]byte, error) {
	fresh := false
	for {
		if *fd < 0 {
			dir := r.group.dir("memory")
			if dir == "" {
				return nil, fmt.Errorf("memory of cgroup %s: controller is not mounted: %w", r.group.path, errdefs.ErrNotFound)
			}
			var err error
			*fd, err = unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				*fd = -1
				return nil, r.failed(name, err)
			}
			fresh = true
		}
		n, err := unix.Pread(*fd, r.buf[:], 0)
		if err == nil {
			return r.buf[:n], nil
		}
		if err == unix.EINTR {
			continue
		}
		_ = unix.Close(*fd)
		*fd = -1
		if fresh || !isGone(err) {
			return nil, r.failed(name, err)
		}
	}
}

func (r *MemoryReader) failed(name string, err error) error {
	if isGone(err) {
		return fmt.Errorf("cgroup %s: %w", r.group.path, errdefs.ErrNotFound)
	}
	return fmt.Errorf("read %s of cgroup %s: %w", name, r.group.path, err)
}

// Package hostplace tells whether two paths of the host are the same file, or one lies
// in the other, whatever mounts they go through. It changes nothing.
package hostplace

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Place names a file or directory by what it is, not by a path: the kubelet gives one
// container a volume and another the same volume, or a directory in it, by a mount of its
// own.
type Place struct {
	Dev, Ino uint64
	// Path is where it lies in its file system; "" where that cannot be told.
	Path string
}

// Within tells where in other it is: "" for other itself.
func (p Place) Within(other Place) (below string, ok bool) {
	switch {
	case p.Dev != other.Dev:
		return "", false
	case p.Ino == other.Ino:
		return "", true
	case p.Path == "" || other.Path == "":
		return "", false
	}
	if below, ok = strings.CutPrefix(p.Path, strings.TrimSuffix(other.Path, "/")+"/"); !ok {
		return "", false
	}
	return below, true
}

// Table is the daemon's table of mounts, by their numbers, read when it is needed. Its
// zero value is ready; it is not safe for concurrent use, and for one moment only.
type Table map[int]*mountinfo.Info

// Of finds an open file.
func (t *Table) Of(f *os.File) (Place, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Place{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	p := Place{Dev: st.Dev, Ino: st.Ino}
	p.Path, _ = t.pathIn(f) // without it, directories in it are not recognized
	return p, nil
}

// pathIn is the path of an open file in its file system.
func (t *Table) pathIn(f *os.File) (string, error) {
	fd := strconv.Itoa(int(f.Fd()))
	name, err := os.Readlink("/proc/self/fd/" + fd)
	if err != nil {
		return "", err
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + fd)
	if err != nil {
		return "", err
	}
	id := -1
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if id, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return "", fmt.Errorf("read number of the mount of %s: %w", name, err)
			}
		}
	}
	if *t == nil {
		if *t, err = read(); err != nil {
			return "", err
		}
	}
	m, ok := (*t)[id]
	if !ok {
		return "", fmt.Errorf("mount %d of %s: %w", id, name, os.ErrNotExist)
	}
	rel, below := strings.CutPrefix(name, strings.TrimSuffix(m.Mountpoint, "/"))
	if !below || rel != "" && rel[0] != '/' {
		return "", fmt.Errorf("%s is not below its mount at %s: %w", name, m.Mountpoint, os.ErrNotExist)
	}
	return path.Join(m.Root, rel), nil
}

func read() (Table, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	table := make(Table, len(mounts))
	for _, m := range mounts {
		table[m.ID] = m
	}
	return table, nil
}

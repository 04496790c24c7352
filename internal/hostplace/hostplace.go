// Package hostplace tells whether two paths of the host are the same file, or one lies
// in the other, whatever mounts they go through. It changes nothing.
package hostplace

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Place names a file or folder by what it is, not by a path: the kubelet gives one
// container a volume and another the same volume, or a folder of it, by a mount of its
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

// Table is the daemon's table of mounts, by their numbers, read when it is needed; see
// mountinfo in proc_pid_mountinfo(5). Its zero value is ready; it is not safe for
// concurrent use, and for one moment only.
type Table map[string]mountPoint

type mountPoint struct{ root, point string }

// Of finds an open file.
func (t *Table) Of(f *os.File) (Place, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Place{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	p := Place{Dev: st.Dev, Ino: st.Ino}
	p.Path, _ = t.pathIn(f) // without it, folders of it are not recognized
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
	var id string
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id = strings.TrimSpace(v)
		}
	}
	if *t == nil {
		if *t, err = read(); err != nil {
			return "", err
		}
	}
	m, ok := (*t)[id]
	rel, below := strings.CutPrefix(name, strings.TrimSuffix(m.point, "/"))
	if !ok || !below || rel != "" && rel[0] != '/' {
		return "", fmt.Errorf("mount %q of %s: %w", id, name, os.ErrNotExist)
	}
	return path.Join(m.root, rel), nil
}

func read() (Table, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	table := Table{}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			table[f[0]] = mountPoint{root: unescape.Replace(f[3]), point: unescape.Replace(f[4])}
		}
	}
	return table, nil
}

package gvisor

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/internal/inroot"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// What a container writes over a file system that is only read is in an overlay of
// the Sentry's own. Its names and attributes are in the Sentry's memory, and the
// contents of all its files are the pages of one sparse file.

// openLayers opens the files of the layers, emptied, in the order in which the
// Sentry asks for them.
func (p *preparedSpec) openLayers() ([]*os.File, error) {
	var files []*os.File
	cu := cleanup.Make(func() { closeAll(files) })
	defer cu.Clean()
	for _, destination := range p.withFile() {
		name := p.layers[destination].File
		// What an earlier start has left in it belongs to nobody.
		f, err := os.OpenFile(name, os.O_RDWR|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open the layer of %s: %w", destination, err)
		}
		files = append(files, f)
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return nil, fmt.Errorf("the layer of %s, %s, is no file: %w", destination, name, errdefs.ErrInvalidArgument)
		}
		mapOnce(f)
	}
	cu.Release()
	return files, nil
}

// layered are the destinations with a layer, in the order of the spec.
func (p *preparedSpec) layered() []string {
	list := []string{"/"}
	for _, m := range p.spec.Mounts {
		if isGoferMount(m) {
			list = append(list, m.Destination)
		}
	}
	return slices.DeleteFunc(list, func(d string) bool { _, ok := p.layers[d]; return !ok })
}

// withFile are those of them whose contents are in files.
func (p *preparedSpec) withFile() []string {
	return slices.DeleteFunc(p.layered(), func(d string) bool { return p.layers[d].File == "" })
}

// mapOnce maps a page for execution. A kernel that measures what is executed (IMA)
// reads the whole file at the first such mapping, which would be the Sentry's, of a
// large file; gVisor's seccomp filter does not allow this there.
func mapOnce(f *os.File) {
	_ = control(f, func(fd int) error {
		b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_EXEC, unix.MAP_SHARED)
		if err == nil {
			_ = unix.Munmap(b)
		}
		return err
	})
}

// seedFile returns what the root's layer begins with as a tar archive in memory, or
// nil if that is nothing.
func (p *preparedSpec) seedFile() (*os.File, error) {
	if _, ok := p.layers["/"]; !ok {
		if len(p.seed) > 0 {
			return nil, fmt.Errorf("the root file system has files to begin with and no layer: %w", errdefs.ErrInvalidArgument)
		}
		return nil, nil
	}
	s := seeder{root: p.spec.Root.Path, ids: p.ids, dirs: map[string]bool{}, files: map[string]bool{}}
	s.tar = tar.NewWriter(&s.out)
	for _, e := range slices.Concat(p.seed, p.mountPoints()) {
		if err := s.add(e); err != nil {
			return nil, fmt.Errorf("put %s into the root file system: %w", e.Path, err)
		}
	}
	for _, name := range p.fifos {
		if err := s.addFIFO(name); err != nil {
			return nil, fmt.Errorf("make FIFO %s of the image: %w", name, err)
		}
	}
	if err := s.tar.Close(); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if len(s.dirs) == 0 {
		return nil, nil
	}
	return memoryFile("seed", s.out.Bytes())
}

// mountPoints are those of the root file system, if it is only read: the Sentry makes
// what is missing of them, but not there.
func (p *preparedSpec) mountPoints() []engine.SeedEntry {
	if !p.spec.Root.Readonly {
		return nil
	}
	var points []engine.SeedEntry
	n := 1
	for _, m := range p.spec.Mounts {
		e := engine.SeedEntry{Path: m.Destination, Mode: os.ModeDir | 0o755, Optional: true}
		if isGoferMount(m) {
			if !p.served[n].isDirectory() {
				e.Mode = 0o644
			}
			n++
		}
		inOther := func(o specs.Mount) bool {
			return o.Destination != m.Destination && within(m.Destination, o.Destination)
		}
		another := func(o engine.SeedEntry) bool { return o.Path == e.Path }
		if !slices.ContainsFunc(p.spec.Mounts, inOther) && !slices.ContainsFunc(points, another) {
			points = append(points, e)
		}
	}
	return points
}

// seeder writes a seed as gVisor's tmpfs reads one: names begin with "./", those of
// directories end with a slash, and each directory has an entry. A directory of the image gets
// the attributes that it has there, since those of the layer count.
type seeder struct {
	root  string
	ids   idmap.Mapping
	out   bytes.Buffer
	tar   *tar.Writer
	dirs  map[string]bool // written, by name in the archive
	files map[string]bool // written, by path
}

func (s *seeder) add(e engine.SeedEntry) error {
	dir, name := path.Split(path.Clean(e.Path))
	if name == "" || !path.IsAbs(e.Path) {
		return fmt.Errorf("it is no absolute path: %w", errdefs.ErrInvalidArgument)
	}
	switch kind, err := s.kindOf(e.Path); {
	case err != nil:
		return err
	case kind == directory && e.Mode.IsDir(), kind != absent && e.Optional:
		return nil
	case kind == file && e.Mode.IsDir():
		return fmt.Errorf("the image has a file there: %w", errdefs.ErrInvalidArgument)
	}
	dir = inroot.Place(s.root, nil, dir)
	if err := s.directories(dir); err != nil {
		return err
	}
	full := path.Join(dir, name)
	if s.files[full] || s.dirs["."+full+"/"] && !e.Mode.IsDir() {
		return fmt.Errorf("something else is to be there: %w", errdefs.ErrInvalidArgument)
	}
	if e.Mode.IsDir() {
		return s.directory(full, int64(e.Mode.Perm()), 0, 0, time.Now())
	}
	s.files[full] = true
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: "." + full, Mode: int64(e.Mode.Perm()), Size: int64(len(e.Content)), ModTime: time.Now(),
	}
	if err := s.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := s.tar.Write(e.Content)
	return err
}

// addFIFO makes a FIFO of the image, unless there is something else by now. One that
// cannot be made stays the image's, and is not opened: no reason not to start.
func (s *seeder) addFIFO(name string) error {
	dir, base := path.Split(path.Clean("/" + name))
	full := path.Join(inroot.Place(s.root, nil, dir), base)
	var st unix.Stat_t
	if unix.Lstat(path.Join(s.root, full), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || s.files[full] || s.dirs["."+full+"/"] {
		return nil
	}
	uid, gid, ok := s.ids.ToContainer(st.Uid, st.Gid)
	if !ok {
		return nil
	}
	switch err := s.directories(path.Dir(full)); {
	case errdefs.IsInvalidArgument(err), errdefs.IsFailedPrecondition(err):
		return nil
	case err != nil:
		return err
	}
	s.files[full] = true
	return s.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeFifo, Name: "." + full, Mode: int64(st.Mode & 0o7777),
		Uid: int(uid), Gid: int(gid), ModTime: time.Unix(st.Mtim.Unix()),
	})
}

// kindOf tells what the image has at a path.
func (s *seeder) kindOf(name string) (pathKind, error) {
	real, err := fs.RootPath(s.root, name)
	if err != nil {
		return absent, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	st, err := os.Lstat(real)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return absent, nil
	case err != nil:
		return absent, err
	case st.IsDir():
		return directory, nil
	}
	return file, nil
}

// directories writes the directories down to dir, which is canonical.
func (s *seeder) directories(dir string) error {
	for at, rest := "/", strings.TrimPrefix(dir, "/"); ; {
		if s.files[at] {
			return fmt.Errorf("%s is to be a file: %w", at, errdefs.ErrInvalidArgument)
		}
		if err := s.imageDirectory(at); err != nil {
			return err
		}
		if rest == "" {
			return nil
		}
		var next string
		next, rest, _ = strings.Cut(rest, "/")
		at = path.Join(at, next)
	}
}

// imageDirectory writes a directory as the image has it, or one of the pod's root.
func (s *seeder) imageDirectory(dir string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path.Join(s.root, dir), &st); {
	case err == unix.ENOENT:
		return s.directory(dir, 0o755, 0, 0, time.Now())
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("the image has a file at %s: %w", dir, errdefs.ErrInvalidArgument)
	}
	uid, gid, ok := s.ids.ToContainer(st.Uid, st.Gid)
	if !ok {
		return fmt.Errorf("%s belongs to %d:%d, which the pod's user namespace does not have: %w", dir, st.Uid, st.Gid, errdefs.ErrFailedPrecondition)
	}
	return s.directory(dir, int64(st.Mode&0o7777), int(uid), int(gid), time.Unix(st.Mtim.Unix()))
}

func (s *seeder) directory(dir string, mode int64, uid, gid int, modified time.Time) error {
	name := "./" + strings.TrimPrefix(dir, "/")
	if dir != "/" {
		name += "/"
	}
	if s.dirs[name] {
		return nil
	}
	s.dirs[name] = true
	return s.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: gid, ModTime: modified})
}

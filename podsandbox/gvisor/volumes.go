package gvisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// volume is a bind mount of a container, by where it lies on the host.
type volume struct {
	destination string // in the container, canonical
	place       place
	flags       uintptr // of the mount; mount(2)
	// nested are the destinations of the container's mounts below it, inner ones first.
	nested []string
	// origin is the container whose gofer serves it: another one, if it was joined.
	origin string
}

func (v volume) writable() bool { return v.flags&unix.MS_RDONLY == 0 }

// place names a file or folder of the host by what it is, not by its path: the
// kubelet gives one container a volume and another the same volume, or a folder of it,
// by a mount of its own.
type place struct {
	dev, ino uint64
	// path is where it lies in its file system; "" where that cannot be told.
	path string
}

// within tells where in other it is: "" for other itself.
func (p place) within(other place) (below string, ok bool) {
	switch {
	case p.dev != other.dev:
		return "", false
	case p.ino == other.ino:
		return "", true
	case p.path == "" || other.path == "":
		return "", false
	}
	below, ok = strings.CutPrefix(p.path, strings.TrimSuffix(other.path, "/")+"/")
	return below, ok
}

// volumesOf lists the bind mounts of a container that it can share. Its own are those
// over which it writes to a layer, and those in which paths are masked or read-only for
// it. One that it may only read is none if it could mount it again for writing: the
// host sees to its own one.
func volumesOf(c engine.Container) ([]volume, error) {
	if c.Spec == nil || c.Spec.Root == nil {
		return nil, fmt.Errorf("spec has no root: %w", errdefs.ErrInvalidArgument)
	}
	mounts := slices.Clone(c.Spec.Mounts)
	asked, err := placed(c.Spec.Root.Path, mounts)
	if err != nil {
		return nil, err
	}
	if mounts, err = translateMounts(mounts); err != nil {
		return nil, err
	}
	restricted := restrictedPlaces(c.Spec, mounts)
	var volumes []volume
	var table mountTable
	for _, m := range mounts {
		if _, layered := c.Writes.Layers[asked[m.Destination]]; layered || !isGoferMount(m) || holdsAny(m.Destination, restricted) {
			continue
		}
		flags := mountFlags(m)
		if flags&unix.MS_RDONLY != 0 && mayMount(c.Spec.Process) {
			continue
		}
		where, err := table.placeOf(m.Source)
		if err != nil {
			continue // the gofer will say it
		}
		volumes = append(volumes, volume{destination: m.Destination, place: where, flags: flags, nested: nestedIn(mounts, m.Destination), origin: c.ID})
	}
	return volumes, nil
}

// restrictedPlaces are where the masked and read-only paths of a container lie.
func restrictedPlaces(spec *specs.Spec, mounts []specs.Mount) []string {
	if spec.Linux == nil {
		return nil
	}
	p := preparedSpec{spec: spec}
	var places []string
	for _, name := range slices.Concat(spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths) {
		places = append(places, p.placeOf(mounts, name))
	}
	return places
}

func holdsAny(dir string, places []string) bool {
	return slices.ContainsFunc(places, func(place string) bool { return within(place, dir) })
}

// mayMount tells whether a process can change mounts, in the sandbox.
func mayMount(p *specs.Process) bool { return hasCapability(p, "CAP_SYS_ADMIN") }

// nestedIn are the destinations of mounts below another one.
func nestedIn(mounts []specs.Mount, destination string) []string {
	var nested []string
	for _, m := range mounts {
		if m.Destination != destination && within(m.Destination, destination) && !slices.Contains(nested, m.Destination) {
			nested = append(nested, m.Destination)
		}
	}
	slices.SortStableFunc(nested, func(a, b string) int { return len(b) - len(a) })
	return nested
}

// mountFlags are the flags of a mount that its options ask for.
func mountFlags(m specs.Mount) uintptr {
	var flags uintptr
	for option, flag := range map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	} {
		if slices.Contains(m.Options, option) {
			flags |= flag
		}
	}
	return flags
}

// mountTable is the daemon's mountinfo by the number of the mount, read when it is
// needed; proc_pid_mountinfo(5).
type mountTable map[string]mountPoint

type mountPoint struct{ root, point string }

// placeOf finds a path of the host.
func (t *mountTable) placeOf(source string) (place, error) {
	f, err := (served{source: source}).openSource()
	if err != nil {
		return place{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return place{}, fmt.Errorf("look at %s: %w", source, err)
	}
	p := place{dev: st.Dev, ino: st.Ino}
	p.path, _ = t.pathIn(f) // without it, folders of it are not recognized
	return p, nil
}

// pathIn is the path of an open file in its file system.
func (t *mountTable) pathIn(f *os.File) (string, error) {
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
		if *t, err = readMountTable(); err != nil {
			return "", err
		}
	}
	m, ok := (*t)[id]
	if !ok || !within(name, m.point) {
		return "", fmt.Errorf("mount %q of %s: %w", id, name, os.ErrNotExist)
	}
	return path.Join(m.root, strings.TrimPrefix(name, m.point)), nil
}

func readMountTable() (mountTable, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	table := mountTable{}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			table[f[0]] = mountPoint{root: unescape.Replace(f[3]), point: unescape.Replace(f[4])}
		}
	}
	return table, nil
}

// volumeTable knows the volumes of the containers that run in a sandbox.
type volumeTable struct {
	mu    sync.Mutex
	byID  map[string][]volume // guarded by mu
	order []string            // guarded by mu; of the starts
}

func (t *volumeTable) add(id string, volumes []volume) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = map[string][]volume{}
	}
	if _, known := t.byID[id]; !known {
		t.order = append(t.order, id)
	}
	t.byID[id] = volumes
}

func (t *volumeTable) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
	t.order = slices.DeleteFunc(t.order, func(o string) bool { return o == id })
}

// sources are where another container has a volume, or one that holds it, for
// writing: what it then makes of a path is what it could make of the files, too.
func (t *volumeTable) sources(id string, v volume) []source {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []source
	for _, holder := range t.order {
		if holder == id {
			continue
		}
		for _, w := range t.byID[holder] {
			if below, ok := v.place.within(w.place); ok && w.writable() {
				found = append(found, source{container: holder, path: path.Join(w.destination, below), origin: w.origin})
			}
		}
	}
	return found
}

// readers are the volumes of other containers, for reading alone, that are a volume of
// this container or lie in it.
func (t *volumeTable) readers(id string, v volume) []join {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []join
	for _, holder := range t.order {
		for _, w := range t.byID[holder] {
			below, ok := w.place.within(v.place)
			if ok && !w.writable() && holder != id {
				from := source{container: id, path: path.Join(v.destination, below), origin: id}
				found = append(found, join{container: holder, volume: w, sources: []source{from}})
			}
		}
	}
	return found
}

// joined notes whose gofer serves a volume now.
func (t *volumeTable) joined(id, destination, origin string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, v := range t.byID[id] {
		if v.destination == destination {
			t.byID[id][i].origin = origin
		}
	}
}

// enterSharing begins the start of a container that has volumes, of which there is one
// at a time in a sandbox.
func (s *Sandbox) enterSharing(ctx context.Context, c engine.Container) (volumes []volume, leave func(), err error) {
	if volumes, err = volumesOf(c); err != nil || len(volumes) == 0 {
		return nil, func() {}, err
	}
	select {
	case s.sharing <- struct{}{}:
		return volumes, func() { <-s.sharing }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// source is a place in the mount namespace of a container.
type source struct{ container, path, origin string }

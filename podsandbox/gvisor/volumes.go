package gvisor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/hostplace"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// volume is a bind mount of a container, by where it lies on the host.
type volume struct {
	destination string // in the container, canonical
	place       hostplace.Place
	flags       uintptr // of the mount; mount(2)
	// nested are the container's mounts below it, inner ones first.
	nested []nestedMount
	// origin is the container whose gofer serves it: another one, if it was joined.
	origin string
}

func (v volume) writable() bool { return v.flags&unix.MS_RDONLY == 0 }

// volumesOf lists the bind mounts of a container that it can share. Its own are those
// over which it writes to a layer, and those in which paths are masked or read-only for
// it. One that it may only read is none if it could mount it again for writing: the
// host sees to its own one.
//
// A file system of the host that does not answer holds up a goroutine, and not the
// caller for longer than ctx allows.
func volumesOf(ctx context.Context, c engine.Container) ([]volume, error) {
	type answer struct {
		volumes []volume
		err     error
	}
	got := make(chan answer, 1)
	go func() {
		volumes, err := lookUpVolumes(c)
		got <- answer{volumes, err}
	}()
	select {
	case a := <-got:
		return a.volumes, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("look at its volumes on the host: %w", ctx.Err())
	}
}

func lookUpVolumes(c engine.Container) ([]volume, error) {
	mounts, asked, err := mountsOf(c)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(mounts, isGoferMount) {
		return nil, nil
	}
	restricted := restrictedPlaces(c.Spec, mounts)
	var volumes []volume
	var table hostplace.Table
	for _, m := range mounts {
		if _, layered := c.Writes.Layers[asked[m.Destination]]; layered || !isGoferMount(m) || isPodFile(m) || holdsAny(m.Destination, restricted) {
			continue
		}
		flags := mountFlags(m)
		if flags&unix.MS_RDONLY != 0 && mayMount(c.Spec.Process) {
			continue
		}
		where, err := placeOf(&table, m.Source)
		if err != nil {
			continue // the gofer will say it
		}
		volumes = append(volumes, volume{destination: m.Destination, place: where, flags: flags, nested: nestedIn(mounts, m.Destination), origin: c.ID})
	}
	return volumes, nil
}

// isPodFile reports a file that the kubelet gives all containers of a pod, to be read.
// To wait for it at the start of each would be for nothing.
func isPodFile(m specs.Mount) bool {
	return slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}, m.Destination)
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

// nestedMount is a mount below another one.
type nestedMount struct {
	destination string
	file        bool // it is mounted on a file
}

// nestedIn are the mounts below another one, inner ones first.
func nestedIn(mounts []specs.Mount, destination string) []nestedMount {
	var nested []nestedMount
	for _, m := range mounts {
		if m.Destination != destination && within(m.Destination, destination) {
			file := isGoferMount(m) && !(served{source: m.Source}).isDirectory()
			nested = append(nested, nestedMount{m.Destination, file})
		}
	}
	slices.SortStableFunc(nested, func(a, b nestedMount) int { return len(b.destination) - len(a.destination) })
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

// placeOf finds the source of a mount.
func placeOf(table *hostplace.Table, source string) (hostplace.Place, error) {
	f, err := (served{source: source}).openSource()
	if err != nil {
		return hostplace.Place{}, err
	}
	defer f.Close()
	return table.Of(f)
}

// source is a place in the mount namespace of a container.
type source struct{ container, path, origin string }

// volumeTable knows the volumes of the containers that run in a sandbox.
type volumeTable struct {
	mu   sync.Mutex
	byID map[string][]volume // +checklocks:mu
	// Of the starts.
	order []string // +checklocks:mu
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
			if below, ok := v.place.Within(w.place); ok && w.writable() {
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
			below, ok := w.place.Within(v.place)
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

package image

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// labelUpper is where the snapshotter says which directory a snapshot fills.
const labelUpper = "containerd.io/snapshot/overlay.upperdir"

// Usage is what something takes of the disk.
type Usage struct {
	Mountpoint string // directory by which the file system is identified
	Bytes      uint64 // allocated, not apparent
	Inodes     uint64
	Time       time.Time // when it was measured
}

// Usage measures what the images take, including downloads and unpacks under
// way, without the writable layers of containers. Layers are walked once in
// their life, by the snapshotter; so this costs a look at a few files.
func (s *Store) Usage(ctx context.Context) (Usage, error) { return s.usage.measure(ctx) }

// usageMeter measures what the images take.
type usageMeter struct {
	dirs    layout
	overlay snapshots.Snapshotter
	layers  layerSizes
}

func (m *usageMeter) measure(ctx context.Context) (Usage, error) {
	t := newTally()
	for _, path := range []string{m.dirs.content(), m.dirs.metadata(), filepath.Join(m.dirs.overlay(), "metadata.db")} {
		if err := t.walk(ctx, path); err != nil {
			return Usage{}, fmt.Errorf("measure images: %w", err)
		}
	}
	type layer struct {
		name, upper string
		committed   bool
	}
	var list []layer
	err := m.overlay.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		list = append(list, layer{info.Name, info.Labels[labelUpper], info.Kind == snapshots.KindCommitted})
		return nil
	})
	// NotFound: the snapshotter has made nothing yet.
	if err != nil && !errdefs.IsNotFound(err) {
		return Usage{}, fmt.Errorf("measure images: %w", err)
	}
	seen := make(map[string]tally, len(list))
	for _, l := range list {
		size, ok := m.layers.get(l.upper)
		if !ok {
			size, err = m.measureLayer(ctx, l.name, l.upper, l.committed)
			if errdefs.IsNotFound(err) {
				continue // removed since the walk
			} else if err != nil {
				return Usage{}, fmt.Errorf("measure layer %s: %w", l.name, err)
			}
		}
		if l.committed {
			seen[l.upper] = size
		}
		t.bytes += size.bytes
		t.inodes += size.inodes
	}
	m.layers.set(seen)
	return Usage{Mountpoint: m.dirs.root, Bytes: t.bytes, Inodes: t.inodes, Time: time.Now()}, nil
}

// measureLayer takes a finished layer's tree from the snapshotter's books, and
// adds the directories around it.
func (m *usageMeter) measureLayer(ctx context.Context, name, upper string, committed bool) (tally, error) {
	t := newTally()
	if !committed {
		err := t.walk(ctx, filepath.Dir(upper))
		return *t, err
	}
	u, err := m.overlay.Usage(ctx, name)
	if err != nil {
		return tally{}, err
	}
	t.bytes, t.inodes = uint64(u.Size), uint64(u.Inodes)
	for _, dir := range []string{filepath.Dir(upper), filepath.Join(filepath.Dir(upper), "work")} {
		if err := t.stat(dir); err != nil {
			return tally{}, err
		}
	}
	return *t, nil
}

// layerSizes remembers the sizes of finished layers by directory; directory numbers
// are never used twice.
type layerSizes struct {
	mu     sync.Mutex
	byPath map[string]tally // +checklocks:mu
}

func (l *layerSizes) get(path string) (tally, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.byPath[path]
	return t, ok
}

func (l *layerSizes) set(all map[string]tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byPath = all
}

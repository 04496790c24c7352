package gvisor

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/inroot"
)

// Mounts are made in this order, whatever the order of the spec:
//
//	the Sentry's own file systems at their places in /proc, /sys and /dev
//	all others, parents first
//	what masks and protects paths
//
// Of two of the same place, which one may have been given through a link of the image,
// the later one in the spec is seen, and the other is not made.

// sentrysOwn reports whether a mount is one that every container has.
func sentrysOwn(m specs.Mount) bool {
	if isBind(m) {
		return false
	}
	switch m.Destination {
	case "/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue":
		return true
	}
	return false
}

// sentrysPlace reports whether the Sentry puts its own at a clean destination whatever
// is mounted there.
func sentrysPlace(destination string) bool {
	switch destination {
	case "/", "/dev", "/dev/pts":
		return true
	}
	return within(destination, "/proc")
}

// arrange sorts mounts into their order. It returns an error for one at a place that
// is the Sentry's.
func arrange(mounts []specs.Mount) ([]specs.Mount, error) {
	var own, others []specs.Mount
	for i, m := range mounts {
		later := func(o specs.Mount) bool { return o.Destination == m.Destination && !sentrysOwn(o) }
		switch {
		case sentrysOwn(m):
			own = append(own, m)
		case sentrysPlace(m.Destination):
			return nil, fmt.Errorf("a mount leads to %s, which is the sandbox's own: %w", m.Destination, errdefs.ErrInvalidArgument)
		case !slices.ContainsFunc(mounts[i+1:], later):
			others = append(others, m)
		}
	}
	parentsFirst(own)
	parentsFirst(others)
	return append(own, others...), nil
}

func parentsFirst(mounts []specs.Mount) {
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int {
		return cmp.Or(cmp.Compare(depth(a.Destination), depth(b.Destination)), cmp.Compare(len(a.Destination), len(b.Destination)))
	})
}

func depth(name string) int { return strings.Count(name, "/") }

// hold makes the Sentry keep the order. It makes mounts in that of the lengths of their
// destinations, so that slashes are put before one that is to come later than a longer
// one, or than one of the same length that it has to do with.
func hold(mounts []specs.Mount) {
	length := 0
	var same []string // the destinations of this length
	for i := range mounts {
		m := &mounts[i]
		clean := m.Destination
		if len(clean) > length {
			length, same = len(clean), nil
		}
		if slices.ContainsFunc(same, func(o string) bool { return within(clean, o) || within(o, clean) }) {
			length, same = length+1, nil
		}
		same = append(same, clean)
		m.Destination = strings.Repeat("/", length-len(clean)) + clean
	}
}

// placed gives mounts their places in the root file system at root, and returns what
// they were, by these.
func placed(root string, mounts []specs.Mount) (asked map[string]string, err error) {
	var places []string
	for i := range mounts {
		m := &mounts[i]
		if !path.IsAbs(m.Destination) {
			return nil, fmt.Errorf("mount destination %q is not absolute: %w", m.Destination, errdefs.ErrInvalidArgument)
		}
		if m.Destination = path.Clean(m.Destination); sentrysOwn(*m) {
			places = append(places, m.Destination) // the Sentry follows links there, if any
		}
	}
	asked = map[string]string{}
	for i := range mounts {
		m := &mounts[i]
		if sentrysOwn(*m) {
			continue
		}
		clean := m.Destination
		m.Destination = inroot.Place(root, places, clean)
		places = append(places, m.Destination)
		asked[m.Destination] = clean // of the last, as in arrange
	}
	return asked, nil
}

// placeOf is where a path of the container leads, with the mounts of its spec made.
func (p *preparedSpec) placeOf(mounts []specs.Mount, name string) string {
	places := make([]string, len(mounts))
	for i, m := range mounts {
		places[i] = m.Destination
	}
	return inroot.Place(p.spec.Root.Path, places, name)
}

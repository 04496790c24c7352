package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// A gofer is not told where in its container a file system is to appear. It serves
// each from a directory of its own in an empty tree: "/0" is the root file system,
// "/1" the first mount that it serves, and so on. The Sentry makes the mount points,
// inside the sandbox, and only there is a destination ever looked up. gVisor's own
// way is to make them on the host, by path, in a tree that other containers of the
// pod write to meanwhile: who swaps a directory for a link there has files made, or
// opened, anywhere on the node, by root.
//
// Nor does it open sources by path. It asks its opener for each, by the number.

// served is a file system that a gofer serves.
type served struct {
	mount specs.Mount // as the gofer gets it
	conf  mountConf

	// destination is where the container has it.
	destination string

	// source is its place on the host, and below a path that is looked up inside
	// of source, where links lead to nothing outside; "" is source itself.
	source, below string
}

// sourcePlaceholder is where a gofer looks for sources. Nothing is there, which
// makes it ask.
const sourcePlaceholder = "/nowhere"

func (p *preparedSpec) serve(m specs.Mount, conf mountConf, below string) {
	n := strconv.Itoa(len(p.served))
	destination, source := m.Destination, m.Source
	m.Destination, m.Source = "/"+n, sourcePlaceholder+"/"+n
	p.served = append(p.served, served{mount: m, conf: conf, destination: destination, source: source, below: below})
}

// goferSpec is the spec of a gofer that serves the tree. Its own root is no file
// system of the container, and is not served.
func (p *preparedSpec) goferSpec() *specs.Spec {
	spec := &specs.Spec{
		Version:     p.spec.Version,
		Process:     &specs.Process{Args: []string{"/"}, Cwd: "/"},
		Root:        &specs.Root{Path: "/", Readonly: true},
		Annotations: p.spec.Annotations,
	}
	for _, s := range p.served {
		spec.Mounts = append(spec.Mounts, s.mount)
	}
	return spec
}

// goferConfs is the gofer's flag that goes with goferSpec.
func (p *preparedSpec) goferConfs() string {
	confs := []mountConf{{Lower: lowerErofs}} // what the gofer knows as "not mine to serve"
	for _, s := range p.served {
		confs = append(confs, s.conf)
	}
	return confList(confs)
}

// confList is the form of the gofer's flag. Where an upper layer is kept is the
// Sentry's business; that there is one makes the gofer serve for reading alone.
func confList(confs []mountConf) string {
	words := make([]string, len(confs))
	for i, c := range confs {
		lower, upper := "lisafs", "none"
		if c.Lower == lowerErofs {
			lower = "erofs"
		}
		if c.Upper != upperNone {
			upper = "memory"
		}
		words[i] = lower + ":" + upper
	}
	return strings.Join(words, ",")
}

// sentryMounts are the mounts as the Sentry gets them: where the sources lie on
// the host is not for it to know. found are those that the gofer has made.
func (p *preparedSpec) sentryMounts(found []specs.Mount) ([]specs.Mount, error) {
	if len(found) != len(p.served) {
		return nil, fmt.Errorf("the gofer serves %d file systems of %d: %w", len(found), len(p.served), errdefs.ErrInternal)
	}
	mounts := slices.Clone(p.spec.Mounts)
	n := 1 // 0 is the root
	for i := range mounts {
		m := &mounts[i]
		if !isGoferMount(*m) {
			continue
		}
		m.Source = p.served[n].mount.Source
		m.Options = slices.Clone(m.Options)
		for _, o := range fileSystemOptions {
			if slices.Contains(found[n].Options, o) {
				m.Options = append(m.Options, o)
			}
		}
		m.UIDMappings, m.GIDMappings = nil, nil // done by the gofer's mount
		n++
	}
	hold(mounts)
	return append(mounts, noMemoryAtTmp), nil
}

// noMemoryAtTmp keeps the Sentry from covering an empty or missing /tmp with memory,
// which it does unless a mount is asked for there. One of a type that it does not
// know is passed over, and leaves the directory as it is.
var noMemoryAtTmp = specs.Mount{Destination: "/tmp", Type: "no-memory", Source: "none"}

// fileSystemOptions are what a gofer tells of the host's file system below a
// mount, in gVisor's words.
var fileSystemOptions = []string{"overlayfs_stale_read", "disable_file_handle_sharing"}

// openIn opens a path below an open directory, as a chroot there would see it, and not
// through the links of /proc.
func openIn(dir *os.File, below string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// EAGAIN: something on the machine was renamed while ".." was followed.
	const attempts = 32
	for i := 0; ; i++ {
		var fd int
		err := control(dir, func(at int) (err error) {
			fd, err = unix.Openat2(at, below, &how)
			return err
		})
		if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && i < attempts {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path.Join(dir.Name(), below), Err: err}
		}
		return os.NewFile(uintptr(fd), path.Join(dir.Name(), below)), nil
	}
}

// openSource opens where a file system lies on the host, in the calling thread's
// mount namespace, with the daemon's rights.
func (s served) openSource() (*os.File, error) {
	fd, err := unix.Open(s.source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "open", Path: s.source, Err: err}
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return nil, err
	}
	source := os.NewFile(uintptr(fd), s.source)
	if s.below == "" {
		return source, nil
	}
	defer source.Close()
	return openIn(source, s.below)
}

// isDirectory tells what kind of mount point it needs.
func (s served) isDirectory() bool {
	f, err := s.openSource()
	if err != nil {
		return true // refused when it is mounted
	}
	defer f.Close()
	st, err := f.Stat()
	return err != nil || st.IsDir()
}

// ids is the mapping through which the container sees it.
func (s served) ids() idmap.Mapping {
	return idmap.Mapping{UIDs: s.mount.UIDMappings, GIDs: s.mount.GIDMappings}
}

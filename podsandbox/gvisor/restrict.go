package gvisor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/internal/inroot"
)

// restrict expresses the masked and the readonly paths of a spec, which the
// Sentry ignores, by what it obeys. A path that does not exist in the container
// is skipped: a mount would create it.
//
//	masked, a directory             read-only empty tmpfs
//	masked, a file of /proc         an empty file in its place, by gVisor's configuration
//	masked, another file            read-only bind of an empty file
//	readonly, in /proc or /sys      see restrictProcSys; all else there takes no writes
//	readonly, elsewhere             read-only bind of the path onto itself
func (t *translator) restrict(ctx context.Context, p *preparedSpec, spec *specs.Spec) error {
	if spec.Linux == nil {
		return nil
	}
	// What exists is asked of the spec's own mounts, not of those added here.
	own := p.spec.Mounts
	for _, masked := range spec.Linux.MaskedPaths {
		if err := t.mask(ctx, p, own, p.placeOf(own, masked)); err != nil {
			return fmt.Errorf("mask path %s: %w", masked, err)
		}
	}
	for _, readonly := range spec.Linux.ReadonlyPaths {
		if err := t.protect(ctx, p, own, p.placeOf(own, readonly)); err != nil {
			return fmt.Errorf("make path %s read-only: %w", readonly, err)
		}
	}
	return nil
}

func (t *translator) mask(ctx context.Context, p *preparedSpec, own []specs.Mount, target string) error {
	found, err := t.lookUp(ctx, p.spec.Root.Path, own, target)
	if err != nil {
		return err
	}
	name, inProc := strings.CutPrefix(target, "/proc/")
	switch {
	case found.kind == absent:
	case found.kind == directory:
		p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
			Destination: target, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "noexec", "size=0k"},
		})
	case inProc && !strings.Contains(name, "/") && !strings.Contains(name, ","):
		p.emptyProcFiles = append(p.emptyProcFiles, name)
	default:
		empty, err := t.emptyFile()
		if err != nil {
			return err
		}
		p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
			Destination: target, Type: "bind", Source: empty, Options: []string{"bind", "ro"},
		})
	}
	return nil
}

func (t *translator) protect(ctx context.Context, p *preparedSpec, own []specs.Mount, target string) error {
	if target == "/proc" || strings.HasPrefix(target, "/proc/") {
		return t.restrictProcSys(ctx, p, target)
	}
	found, err := t.lookUp(ctx, p.spec.Root.Path, own, target)
	if err != nil {
		return err
	}
	switch {
	case found.kind == absent, found.readonly:
	case strings.HasPrefix(target, "/sys/"), target == "/sys":
		// The Sentry's sysfs has nothing that can be written.
	case found.source == "":
		return fmt.Errorf("it lies in a file system of the sandbox, which can only be mounted read-only as a whole: %w", errdefs.ErrInvalidArgument)
	default:
		p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
			Destination: target, Type: "bind", Source: found.source, Options: []string{"rbind", "ro"},
			UIDMappings: found.ids.UIDs, GIDMappings: found.ids.GIDs,
		})
		p.below[target] = found.below
	}
	return nil
}

type pathKind int

const (
	absent pathKind = iota
	file
	directory
)

// location is where a path of a container leads.
type location struct {
	kind pathKind
	// source is the place on the host of the mount that holds it, and below its
	// path in there, which others may change meanwhile; see served. Empty for the
	// sandbox's own file systems.
	source, below string
	readonly      bool
	ids           idmap.Mapping // through which the mount that holds it is seen
}

// lookUp finds a path as the container will see it, by the mount that holds it.
func (t *translator) lookUp(ctx context.Context, root string, mounts []specs.Mount, target string) (location, error) {
	holder := specs.Mount{Destination: "/", Type: "bind", Source: root}
	for _, m := range mounts {
		if within(target, m.Destination) { // a later one covers what was there
			holder = m
		}
	}
	if isBind(holder) {
		return lookUpOnHost(holder, target)
	}
	switch holder.Type {
	case "proc", "sysfs", "cgroup2":
		kind, err := t.kindInSandbox(ctx, target)
		return location{kind: kind}, err
	}
	if target == holder.Destination {
		return location{kind: directory}, nil
	}
	return location{}, nil // a fresh tmpfs is empty
}

func lookUpOnHost(holder specs.Mount, target string) (location, error) {
	loc := location{
		source: holder.Source, below: strings.TrimPrefix(strings.TrimPrefix(target, holder.Destination), "/"),
		ids:      idmap.Mapping{UIDs: holder.UIDMappings, GIDs: holder.GIDMappings},
		readonly: slices.Contains(holder.Options, "ro"),
	}
	found, err := (served{source: loc.source, below: loc.below}).openSource()
	if err != nil {
		return location{}, nil // not reachable, so not there
	}
	defer found.Close()
	var st unix.Stat_t
	if err := control(found, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return location{}, fmt.Errorf("look at %s: %w", found.Name(), err)
	}
	loc.kind = file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		loc.kind = directory
	}
	return loc, nil
}

func within(target, dir string) bool { return inroot.Within(target, dir) }

// kindInSandbox tells what a path in one of the sandbox's own file systems is.
func (t *translator) kindInSandbox(ctx context.Context, target string) (pathKind, error) {
	if kind, ok := knownKind(target); ok {
		return kind, nil
	}
	if kind, ok := t.kinds.Load(target); ok {
		return kind.(pathKind), nil
	}
	kind, err := t.control.kindOf(ctx, target)
	if err == nil {
		t.kinds.Store(target, kind)
	}
	return kind, err
}

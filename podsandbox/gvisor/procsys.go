package gvisor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// procSysImages are read-only images of the directories of defaultSysctls, by directory,
// made at the first use. Pods with the Sentry's own values share those of the
// engine, which no sandbox was asked for; a pod with sysctls or with the host's
// network has its own.
type procSysImages struct {
	mu     sync.Mutex
	images map[string]*os.File // +checklocks:mu
}

// get returns the images, made by the given function if there are none. It is
// called without the lock, as it may ask a sandbox; of two that make them at the
// same time, one has worked in vain.
func (i *procSysImages) get(read func() (map[string]*os.File, error)) (map[string]*os.File, error) {
	i.mu.Lock()
	images := i.images
	i.mu.Unlock()
	if images != nil {
		return images, nil
	}
	images, err := read()
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.images == nil {
		i.images = images
	} else {
		closeImages(images)
	}
	return i.images, nil
}

func closeImages(images map[string]*os.File) {
	for _, f := range images {
		f.Close()
	}
}

func (i *procSysImages) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	closeImages(i.images)
	i.images = nil
}

// restrictProcSys makes what lies at or below target in /proc/sys read-only: the
// directories that can be written are covered by images of themselves, which the
// Sentry mounts without a gofer.
func (t *translator) restrictProcSys(ctx context.Context, p *preparedSpec, target string) error {
	cache, read := t.usual, defaultProcSys
	if len(t.cfg.Sysctls) > 0 || t.settings.hostNetwork {
		cache, read = &t.procSys, func() (map[string]*os.File, error) { return t.readProcSys(ctx) }
	}
	images, err := cache.get(read)
	if err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(images)) {
		if !within(dir, target) && !within(target, dir) {
			continue
		}
		if slices.ContainsFunc(p.spec.Mounts, func(m specs.Mount) bool { return m.Destination == dir }) {
			continue // a narrower path has covered it already
		}
		f, err := reopen(images[dir])
		if err != nil {
			return err
		}
		p.images = append(p.images, f)
		p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
			Destination: dir, Type: imageMountType, Source: "/proc-sys", Options: []string{"ro", "nosuid", "noexec"},
		})
	}
	return nil
}

// defaultProcSys makes the images from the values that a sandbox has by itself.
func defaultProcSys() (map[string]*os.File, error) { return imagesOf(defaultSysctls, nil) }

// readProcSys makes the images from the values that this sandbox has.
func (t *translator) readProcSys(ctx context.Context) (map[string]*os.File, error) {
	values := map[string]map[string]string{}
	for dir, names := range defaultSysctls {
		values[dir] = map[string]string{}
		for name := range names {
			value, err := t.control.readFile(ctx, path.Join(dir, name))
			switch {
			case err == nil:
				values[dir][name] = string(value)
			case !isMissing(err): // as without a network stack of the sandbox's own
				return nil, fmt.Errorf("read %s: %w", path.Join(dir, name), err)
			}
		}
	}
	return imagesOf(values, t.cfg.Sysctls)
}

// imagesOf makes the images of directories that have files. Of what the Sentry has no file
// for, or one that is not true, they have what package sysctl knows.
func imagesOf(values map[string]map[string]string, asked map[string]string) (map[string]*os.File, error) {
	shown := sysctl.Shown(asked)
	images := map[string]*os.File{}
	cu := cleanup.Make(func() { closeImages(images) })
	defer cu.Clean()
	for dir, files := range values {
		tree := guest.Dir{}
		for name, value := range files {
			tree[name] = guest.File{Data: []byte(value)}
		}
		if len(tree) == 0 {
			continue
		}
		for name, value := range shown {
			if path.Join("/proc/sys", path.Dir(name)) == dir {
				tree[path.Base(name)] = guest.File{Data: []byte(value)}
			}
		}
		image, err := guest.Image(tree)
		if err != nil {
			return nil, err
		}
		if images[dir], err = memoryFile("proc-sys", image); err != nil {
			return nil, err
		}
	}
	cu.Release()
	return images, nil
}

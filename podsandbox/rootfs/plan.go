package rootfs

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/inroot"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// maxImageVolumes is how many volumes an image may declare: each may take a
// connection and a file of its own.
const maxImageVolumes = 64

// podFileRoom bounds, in bytes, what a container writes over a file of the pod that
// lies in a mount of its own.
const podFileRoom = 1 << 20

// Plan is where what a container writes goes, and what is mounted for it.
type Plan struct {
	engine.Writes
	// Files and Volumes are binds, sources on the host by their destinations.
	Files, Volumes map[string]string
}

// DropReplaced takes the layers from mounts that devices or plugins have put in the
// place of ours: what is written to those is to reach them.
func (p *Plan) DropReplaced(s *specs.Spec) {
	for _, m := range s.Mounts {
		ours := cmp.Or(p.Files[m.Destination], p.Volumes[m.Destination])
		if _, layered := p.Layers[m.Destination]; layered && m.Source != ours {
			delete(p.Layers, m.Destination)
		}
	}
}

// MountRoot mounts the container's image.
func (b *Builder) MountRoot(c *state.Container, img image.Image) error {
	mount := b.images.MountReadOnly
	if b.opts.OnHost {
		mount = b.images.MountRootfs
	}
	if err := mount(c.ID(), img, b.paths.Rootfs(c.Pod.ID(), c.ID()), c.Pod.IDs()); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// Plan is called when the root file system is mounted. The mounts are those of
// the request.
func (b *Builder) Plan(c *state.Container, img image.Image, mounts []*runtimeapi.Mount) (*Plan, error) {
	p := &Plan{Files: map[string]string{}, Volumes: map[string]string{}}
	p.Layers = map[string]engine.Layer{}
	if err := b.planRoot(p, c); err != nil {
		return nil, err
	}
	if !b.opts.OnHost {
		p.FIFOs = b.images.FIFOs(img)
	}
	if err := b.planMemory(p, c, mounts); err != nil {
		return nil, err
	}
	places := placesOf(b.paths.Rootfs(c.Pod.ID(), c.ID()), mounts)
	if err := b.planFiles(p, c, places); err != nil {
		return nil, err
	}
	if err := b.planVolumes(p, c, places, spec.ImageVolumes(img.Config, mounts)); err != nil {
		return nil, err
	}
	if b.opts.OnHost {
		root := b.paths.Rootfs(c.Pod.ID(), c.ID())
		if err := placeSeed(root, p.Seed, c.Pod.IDs()); err != nil {
			return nil, fmt.Errorf("put files into the root file system: %w", err)
		}
		p.Seed = nil
	}
	return p, nil
}

// planRoot gives the root file system its layer. One that is not written to takes
// the pod's files and mount points, in memory.
func (b *Builder) planRoot(p *Plan, c *state.Container) error {
	switch {
	case b.opts.OnHost:
		return nil
	case readOnlyRoot(c):
		p.Layers["/"] = engine.Layer{}
		return nil
	}
	return b.addLayer(p, c, "/")
}

// addLayer gives a destination a layer on the disk.
func (b *Builder) addLayer(p *Plan, c *state.Container, destination string) error {
	file, err := b.images.LayerFile(c.ID(), len(p.Layers))
	if err != nil {
		return err
	}
	bytes, inodes, err := b.images.Room()
	if err != nil {
		return err
	}
	if limit := b.opts.Bytes; limit > 0 {
		bytes = min(bytes, limit)
	}
	p.Layers[destination] = engine.Layer{File: file, Bytes: bytes, Inodes: inodes}
	return nil
}

// planFiles gives the container its own copies of the pod's files, which a mount of
// the request may take the place of. Where a mount holds their directory, each is a
// mount in it, as no other container is to see it there.
func (b *Builder) planFiles(p *Plan, c *state.Container, places []string) error {
	root := b.paths.Rootfs(c.Pod.ID(), c.ID())
	for _, f := range b.podFiles(c.Pod.ID()) {
		// A file replaces a link of the image; a mount follows it.
		file := path.Join(inroot.Place(root, places, path.Dir(f.path)), path.Base(f.path))
		mount := inroot.Place(root, places, f.path)
		switch {
		case slices.Contains(places, file), slices.Contains(places, mount):
		case inroot.Covered(file, places):
			p.Files[f.path] = f.source
			p.Layers[f.path] = engine.Layer{Bytes: podFileRoom}
		default:
			content, err := os.ReadFile(f.source)
			if err != nil {
				return fmt.Errorf("read file of the pod: %w", err)
			}
			p.Seed = append(p.Seed, engine.SeedEntry{Path: f.path, Mode: 0o644, Content: content})
		}
	}
	return nil
}

// planVolumes gives the container the directories that its image declares as volumes,
// with what the image has there. They are part of the root file system, but where
// that is not written to or a mount holds them: there they have layers of their own.
// One that leads to the place of a mount, or to what every container has mounted, is none.
func (b *Builder) planVolumes(p *Plan, c *state.Container, places, volumes []string) error {
	if err := checkVolumes(volumes); err != nil {
		return err
	}
	root := b.paths.Rootfs(c.Pod.ID(), c.ID())
	var taken []string
	for _, destination := range volumes {
		place := inroot.Place(root, places, destination)
		if place == "/" || spec.BelowDefaultMounts(place) || slices.Contains(places, place) || slices.Contains(taken, place) {
			continue
		}
		taken = append(taken, place)
		if !readOnlyRoot(c) && !inroot.Covered(place, places) {
			p.Seed = append(p.Seed, engine.SeedEntry{Path: destination, Mode: os.ModeDir | 0o755})
			continue
		}
		source, err := b.volumeSource(c, destination)
		if err != nil {
			return fmt.Errorf("make image volume %s: %w", destination, err)
		}
		p.Volumes[destination] = source
		if err := b.addLayer(p, c, destination); err != nil {
			return err
		}
	}
	return nil
}

// placesOf are where the mounts of a request are in a root file system, whatever links
// of the image lead there.
func placesOf(root string, mounts []*runtimeapi.Mount) []string {
	mounts = slices.SortedStableFunc(slices.Values(mounts), func(a, b *runtimeapi.Mount) int {
		return cmp.Compare(strings.Count(path.Clean(a.GetContainerPath()), "/"), strings.Count(path.Clean(b.GetContainerPath()), "/"))
	})
	var places []string
	for _, m := range mounts {
		places = append(places, inroot.Place(root, places, m.GetContainerPath()))
	}
	return places
}

func checkVolumes(volumes []string) error {
	if len(volumes) > maxImageVolumes {
		return fmt.Errorf("the image declares %d volumes, at most %d are made; mount some of them: %w",
			len(volumes), maxImageVolumes, errdefs.ErrInvalidArgument)
	}
	for _, v := range volumes {
		if len(v) > spec.MaxPath {
			return fmt.Errorf("the image declares a volume at a path of %d bytes, at most %d can be: %w", len(v), spec.MaxPath, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// volumeSource is the directory of the image below a volume, or an empty one of the
// pod's root.
func (b *Builder) volumeSource(c *state.Container, destination string) (string, error) {
	pod, id := c.Pod.ID(), c.ID()
	found, err := directoryIn(b.paths.Rootfs(pod, id), destination)
	if !errdefs.IsNotFound(err) {
		return found, err
	}
	empty := filepath.Join(b.paths.Volumes(pod, id), "empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	uid, gid, _ := c.Pod.IDs().ToHost(0, 0)
	return empty, os.Chown(empty, int(uid), int(gid))
}

func readOnlyRoot(c *state.Container) bool {
	return c.Config().GetLinux().GetSecurityContext().GetReadonlyRootfs()
}

package podsandbox

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
)

// LayerOptions say where what containers write to their root file systems goes. The
// zero value is in the sandbox, up to the size of the disk.
type LayerOptions struct {
	// OnHost writes it to the host, where each file of a container is one of the
	// host's.
	OnHost bool

	// Bytes is how much one container may write, if not OnHost; 0 is as much as the
	// disk holds.
	Bytes uint64

	// MemoryOnHost leaves volumes of medium Memory to the host's tmpfs, instead of the
	// sandbox's memory.
	MemoryOnHost bool
}

// maxImageVolumes is how many volumes an image may declare: each may take a
// connection and a file of its own.
const maxImageVolumes = 64

// podFileRoom bounds, in bytes, what a container writes over a file of the pod that
// lies in a mount of its own.
const podFileRoom = 1 << 20

// plan is where what a container writes goes, and what is mounted for it.
type plan struct {
	engine.Writes
	// files and volumes are binds, sources on the host by their destinations.
	files, volumes map[string]string
}

// dropReplaced takes the layers from mounts that devices or plugins have put in the
// place of ours: what is written to those is to reach them.
func (p *plan) dropReplaced(s *specs.Spec) {
	for _, m := range s.Mounts {
		ours := cmp.Or(p.files[m.Destination], p.volumes[m.Destination])
		if _, layered := p.Layers[m.Destination]; layered && m.Source != ours {
			delete(p.Layers, m.Destination)
		}
	}
}

// mountRoot mounts the container's image.
func (m *Manager) mountRoot(c *container, img image.Image) error {
	mount := m.opts.Images.MountReadOnly
	if m.opts.Layers.OnHost {
		mount = m.opts.Images.MountRootfs
	}
	if err := mount(c.id(), img, m.paths.rootfs(c.pod.id(), c.id()), c.pod.ids()); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// planWrites is called when the root file system is mounted. The mounts are those of
// the request.
func (m *Manager) planWrites(c *container, img image.Image, mounts []*runtimeapi.Mount) (*plan, error) {
	p := &plan{files: map[string]string{}, volumes: map[string]string{}}
	p.Layers = map[string]engine.Layer{}
	if err := m.planRoot(p, c); err != nil {
		return nil, err
	}
	if !m.opts.Layers.OnHost {
		p.FIFOs = m.opts.Images.FIFOs(img)
	}
	if err := m.planMemory(p, c, mounts); err != nil {
		return nil, err
	}
	places := placesOf(m.paths.rootfs(c.pod.id(), c.id()), mounts)
	if err := m.planFiles(p, c, places); err != nil {
		return nil, err
	}
	if err := m.planVolumes(p, c, places, spec.ImageVolumes(img.Config, mounts)); err != nil {
		return nil, err
	}
	if m.opts.Layers.OnHost {
		root := m.paths.rootfs(c.pod.id(), c.id())
		if err := placeSeed(root, p.Seed, c.pod.ids()); err != nil {
			return nil, fmt.Errorf("put files into the root file system: %w", err)
		}
		p.Seed = nil
	}
	return p, nil
}

// planRoot gives the root file system its layer. One that is not written to takes
// the pod's files and mount points, in memory.
func (m *Manager) planRoot(p *plan, c *container) error {
	switch {
	case m.opts.Layers.OnHost:
		return nil
	case readOnlyRoot(c):
		p.Layers["/"] = engine.Layer{}
		return nil
	}
	return m.addLayer(p, c, "/")
}

// addLayer gives a destination a layer on the disk.
func (m *Manager) addLayer(p *plan, c *container, destination string) error {
	file, err := m.opts.Images.LayerFile(c.id(), len(p.Layers))
	if err != nil {
		return err
	}
	bytes, inodes, err := m.opts.Images.Room()
	if err != nil {
		return err
	}
	if limit := m.opts.Layers.Bytes; limit > 0 {
		bytes = min(bytes, limit)
	}
	p.Layers[destination] = engine.Layer{File: file, Bytes: bytes, Inodes: inodes}
	return nil
}

// planFiles gives the container its own copies of the pod's files, which a mount of
// the request may take the place of. Where a mount holds their folder, each is a
// mount in it, as no other container is to see it there.
func (m *Manager) planFiles(p *plan, c *container, places []string) error {
	root := m.paths.rootfs(c.pod.id(), c.id())
	for _, f := range m.podFiles(c.pod.id()) {
		// A file replaces a link of the image; a mount follows it.
		file := path.Join(inroot.Place(root, places, path.Dir(f.path)), path.Base(f.path))
		mount := inroot.Place(root, places, f.path)
		switch {
		case slices.Contains(places, file), slices.Contains(places, mount):
		case inroot.Covered(file, places):
			p.files[f.path] = f.source
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

// planVolumes gives the container the folders that its image declares as volumes,
// with what the image has there. They are part of the root file system, but where
// that is not written to or a mount holds them: there they have layers of their own.
// One that leads to the place of a mount, or to what the engine serves, is none.
func (m *Manager) planVolumes(p *plan, c *container, places, volumes []string) error {
	if err := checkVolumes(volumes); err != nil {
		return err
	}
	root := m.paths.rootfs(c.pod.id(), c.id())
	var taken []string
	for _, destination := range volumes {
		place := inroot.Place(root, places, destination)
		if place == "/" || spec.ServedByEngine(place) || slices.Contains(places, place) || slices.Contains(taken, place) {
			continue
		}
		taken = append(taken, place)
		if !readOnlyRoot(c) && !inroot.Covered(place, places) {
			p.Seed = append(p.Seed, engine.SeedEntry{Path: destination, Mode: os.ModeDir | 0o755})
			continue
		}
		source, err := m.volumeSource(c, destination)
		if err != nil {
			return fmt.Errorf("make image volume %s: %w", destination, err)
		}
		p.volumes[destination] = source
		if err := m.addLayer(p, c, destination); err != nil {
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

// volumeSource is the folder of the image below a volume, or an empty one of the
// pod's root.
func (m *Manager) volumeSource(c *container, destination string) (string, error) {
	pod, id := c.pod.id(), c.id()
	found, err := folderIn(m.paths.rootfs(pod, id), destination)
	if !errdefs.IsNotFound(err) {
		return found, err
	}
	empty := filepath.Join(m.paths.volumes(pod, id), "empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	uid, gid, _ := c.pod.ids().ToHost(0, 0)
	return empty, os.Chown(empty, int(uid), int(gid))
}

func readOnlyRoot(c *container) bool {
	return c.config().GetLinux().GetSecurityContext().GetReadonlyRootfs()
}

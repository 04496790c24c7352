// Package rootfs owns what a container has as files: its image as a root file system,
// the images and volumes that are mounted in it, the pod's files in /etc, and where what
// it writes goes. It describes to the engine what the engine is to make, and mounts on
// the host what the host has to.
//
// All of it lies below the container's directory (package layout) and in the image
// store, under keys that follow from the request, so that any daemon can take it away.
package rootfs

import (
	"fmt"
	"os"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// Options say where what containers write to their root file systems goes. The zero
// value is in the sandbox, up to the size of the disk.
type Options struct {
	// OnHost writes it to the host, where each file of a container is one of the
	// host's.
	OnHost bool

	// Bytes is how much one container may write, if not OnHost; 0 is as much as the
	// disk holds.
	Bytes uint64

	// MemoryOnHost leaves volumes of medium Memory to the host's tmpfs, instead of the
	// sandbox's memory.
	MemoryOnHost bool

	// HostSockets are paths of the host, absolute. A container with a mount of one, or
	// of what lies in it, may connect to the Unix sockets in its mounts.
	HostSockets []string
}

// Builder makes the files of one daemon's containers. Its methods are safe for
// concurrent use, for different containers.
type Builder struct {
	images *image.Store
	paths  layout.Paths
	opts   Options
}

// New makes a builder.
func New(images *image.Store, paths layout.Paths, opts Options) *Builder {
	return &Builder{images: images, paths: paths, opts: opts}
}

// MakeDirectory makes the directory of a container that is being created.
func (b *Builder) MakeDirectory(c *state.Container) error {
	if err := os.Mkdir(b.paths.Container(c.Pod.ID(), c.ID()), 0o700); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	crashpoint.Here("after container directory")
	return nil
}

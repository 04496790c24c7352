package gvisor

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A volume in the sandbox's memory is a tmpfs of the root container, which lives as long
// as the pod, and which no other program can reach. Containers join it as they join a
// volume of another container (share.go).

// memoryDir is where the root container has them.
const memoryDir = "/dev/.volumes"

// memoryPlace is what a container has at the place of one until it has joined it, and
// never sees.
func memoryPlace(m specs.Mount) specs.Mount {
	m.Type, m.Source, m.UIDMappings, m.GIDMappings = "tmpfs", "tmpfs", nil, nil
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
		return !slices.Contains([]string{"ro", "nosuid", "nodev", "noexec"}, o)
	})
	return m
}

// memoryJoins are the memory volumes of a container.
func (s *Sandbox) memoryJoins(c engine.Container) []join {
	if len(c.Writes.Memory) == 0 {
		return nil
	}
	mounts, asked, err := mountsOf(c)
	if err != nil {
		return nil // it was not created
	}
	var joins []join
	for _, m := range mounts {
		v, ok := c.Writes.Memory[asked[m.Destination]]
		if !ok || m.Type != "tmpfs" {
			continue
		}
		joins = append(joins, join{
			container: c.ID,
			volume:    volume{destination: m.Destination, flags: mountFlags(m), nested: nestedIn(mounts, m.Destination), origin: c.ID},
			sources:   []source{{container: s.cfg.ID, path: path.Join(memoryDir, v.Name, v.Below)}},
			memory:    &v,
		})
	}
	return joins
}

// makeMemoryVolume makes a volume, unless it was made before. The sandbox's sharing is
// held.
func (s *Sandbox) makeMemoryVolume(ctx context.Context, v engine.MemoryVolume) error {
	if v.Name == "" || v.Name != filepath.Base(v.Name) || v.Name == ".." || v.Name == "." {
		return fmt.Errorf("volume name %q is no file name: %w", v.Name, errdefs.ErrInvalidArgument)
	}
	if s.memory[v.Name] {
		return nil
	}
	dir := path.Join(memoryDir, v.Name)
	options := fmt.Sprintf("mode=%o,uid=%d,gid=%d,size=%d,nr_inodes=%d", v.Mode&0o7777, v.UID, v.GID, orMost(v.Bytes), orMost(v.Inodes))
	failed, err := s.changeMounts(ctx, []string{
		"K", memoryDir, "f", "448", "k", dir,
		"f", strconv.Itoa(unix.MS_NOSUID | unix.MS_NODEV), "p", options, "t", dir,
	})
	if err != nil && failed != 3 { // else it is there, since an earlier daemon
		return err
	}
	if s.memory == nil {
		s.memory = map[string]bool{}
	}
	s.memory[v.Name] = true
	return nil
}

// makeMemoryFolders makes the folders on the way to a part of a volume that are
// missing, as the kubelet makes those of a subPath. Links on the way are followed by
// the kernel of the sandbox, in the root container, where they lead to nothing that is
// another's.
func (s *Sandbox) makeMemoryFolders(ctx context.Context, v engine.MemoryVolume) error {
	at := path.Join(memoryDir, v.Name)
	mode, uid, gid := strconv.Itoa(int(v.Mode&0o7777)), strconv.FormatUint(uint64(v.UID), 10), strconv.FormatUint(uint64(v.GID), 10)
	var errs error
	for part := range strings.SplitSeq(v.Below, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("folder %q of volume %s is not clean: %w", v.Below, v.Name, errdefs.ErrInvalidArgument)
		}
		at = path.Join(at, part)
		// The first of them fails where there is one.
		if failed, err := s.changeMounts(ctx, []string{"f", mode, "k", at, "f", uid, "g", gid, "w", at, "f", mode, "x", at}); err != nil && failed != 2 {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

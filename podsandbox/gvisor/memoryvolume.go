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
func (v *sharedVolumes) memoryJoins(c engine.Container) []join {
	if len(c.Writes.Memory) == 0 {
		return nil
	}
	mounts, asked, err := mountsOf(c)
	if err != nil {
		return nil // it was not created
	}
	var joins []join
	for _, m := range mounts {
		mv, ok := c.Writes.Memory[asked[m.Destination]]
		if !ok || m.Type != "tmpfs" {
			continue
		}
		joins = append(joins, join{
			container: c.ID,
			volume:    volume{destination: m.Destination, flags: mountFlags(m), nested: nestedIn(mounts, m.Destination), origin: c.ID},
			sources:   []source{{container: v.control.sentry.root, path: path.Join(memoryDir, mv.Name)}},
			memory:    &mv,
		})
	}
	return joins
}

// makeMemoryVolume makes a volume, unless it was made before. The turn is held.
func (v *sharedVolumes) makeMemoryVolume(ctx context.Context, mv engine.MemoryVolume) error {
	if mv.Name == "" || mv.Name != filepath.Base(mv.Name) || mv.Name == ".." || mv.Name == "." {
		return fmt.Errorf("volume name %q is no file name: %w", mv.Name, errdefs.ErrInvalidArgument)
	}
	if v.memory[mv.Name] {
		return nil
	}
	dir := path.Join(memoryDir, mv.Name)
	options := fmt.Sprintf("mode=%o,uid=%d,gid=%d,size=%d,nr_inodes=%d", mv.Mode&0o7777, mv.UID, mv.GID, orMost(mv.Bytes), orMost(mv.Inodes))
	failed, err := v.programs.changeMounts(ctx, []string{
		"K", memoryDir, "f", "448", "k", dir,
		"f", strconv.Itoa(unix.MS_NOSUID | unix.MS_NODEV), "p", options, "t", dir,
	})
	if err != nil && failed != 3 { // else it is there, since an earlier daemon
		return err
	}
	if v.memory == nil {
		v.memory = map[string]bool{}
	}
	v.memory[mv.Name] = true
	return nil
}

// partPlace is where a container that waits behind its gate has the whole of a volume,
// while the part of it that it is to have is looked for.
const partPlace = "/dev/.sandbox-volume"

// joinPart is joinAny for a part of a volume in memory, which is made if it is missing, as
// the kubelet makes those of a subPath. It is looked up in the mount namespace of the
// container that waits: what others have put on the way leads to its own files at most.
func (v *sharedVolumes) joinPart(ctx context.Context, j join, then []string) error {
	root, err := v.control.firstProcess(ctx, v.control.sentry.root)
	if err != nil {
		return err
	}
	to, err := v.control.firstProcess(ctx, j.container)
	if err != nil {
		return err
	}
	away := []string{"n", pidArg(to), "u", partPlace}
	for range maxPartsLeft { // of a daemon that died meanwhile
		if _, err := v.programs.changeMounts(ctx, away); err != nil {
			break
		}
	}
	whole := path.Join(memoryDir, j.memory.Name)
	if _, err := v.programs.changeMounts(ctx, []string{"n", pidArg(root), "o", whole, "n", pidArg(to), "K", partPlace, "m", partPlace}); err != nil {
		return err
	}
	then = slices.Concat(away, []string{"d", partPlace}, then)
	part := path.Join(partPlace, j.memory.Below)
	if err = v.copyMount(ctx, j, part, to, to, then); err == nil {
		return nil
	}
	if err := v.makeMemoryDirectories(ctx, to, *j.memory); err != nil {
		return err
	}
	return v.copyMount(ctx, j, part, to, to, then)
}

// maxPartsLeft bounds how often a daemon may have died in one start.
const maxPartsLeft = 8

// makeMemoryDirectories makes the directories on the way to a part of a volume that are missing.
func (v *sharedVolumes) makeMemoryDirectories(ctx context.Context, in int32, mv engine.MemoryVolume) error {
	at := partPlace
	mode, uid, gid := strconv.Itoa(int(mv.Mode&0o7777)), strconv.FormatUint(uint64(mv.UID), 10), strconv.FormatUint(uint64(mv.GID), 10)
	var errs error
	for part := range strings.SplitSeq(mv.Below, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("directory %q of volume %s is not clean: %w", mv.Below, mv.Name, errdefs.ErrInvalidArgument)
		}
		at = path.Join(at, part)
		// The third of them fails where there is one.
		ops := []string{"n", pidArg(in), "f", mode, "k", at, "f", uid, "g", gid, "w", at, "f", mode, "x", at}
		if failed, err := v.programs.changeMounts(ctx, ops); err != nil && failed != 3 {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

package rootfs

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/hostplace"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// planMemory finds the mounts that are the pod's emptyDir volumes of medium Memory. The
// kubelet has made a tmpfs of each, with its size, owner and mode, and puts nothing
// there but the directories of subPaths; so the sandbox has the files in its own memory,
// which is the pod's, too.
func (b *Builder) planMemory(p *Plan, c *state.Container, mounts []*runtimeapi.Mount) error {
	if b.opts.MemoryOnHost {
		return nil
	}
	var table hostplace.Table
	for _, mount := range mounts {
		dir, ok := emptyDirOf(c.Pod.Config().GetMetadata().GetUid(), mount.GetHostPath())
		if !ok {
			continue
		}
		v, ok, err := memoryVolume(&table, dir, mount.GetHostPath())
		if err != nil {
			return fmt.Errorf("look at volume %s: %w", mount.GetHostPath(), err)
		}
		// The container's ids are those of the volume if the mount maps them.
		if ok && !c.Pod.IDs().IsZero() && len(mount.GetUidMappings()) == 0 {
			v.UID, v.GID, ok = c.Pod.IDs().ToContainer(v.UID, v.GID)
		}
		if !ok {
			continue
		}
		if p.Memory == nil {
			p.Memory = map[string]engine.MemoryVolume{}
		}
		p.Memory[filepath.Clean(mount.GetContainerPath())] = v
	}
	return nil
}

// emptyDirOf is the directory of the emptyDir that the kubelet has made a mount from, of
// this pod: the volume itself or a part of it.
func emptyDirOf(podUID, hostPath string) (dir string, ok bool) {
	before, rest, ok := strings.Cut(filepath.Clean(hostPath), "/pods/"+podUID+"/")
	if !ok || podUID == "" {
		return "", false
	}
	parts := strings.Split(rest, "/")
	switch {
	case len(parts) == 3 && parts[0] == "volumes" && parts[1] == "kubernetes.io~empty-dir":
		return filepath.Clean(hostPath), true
	case len(parts) == 4 && parts[0] == "volume-subpaths":
		return filepath.Join(before, "pods", podUID, "volumes/kubernetes.io~empty-dir", parts[1]), true
	}
	return "", false
}

// memoryVolume describes an emptyDir that is a tmpfs of its own, or the directory of it
// that is mounted at source.
func memoryVolume(table *hostplace.Table, dir, source string) (v engine.MemoryVolume, ok bool, err error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return v, false, nil // no emptyDir, so none in memory
	}
	defer f.Close()
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return v, false, err
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return v, false, err
	}
	volume, err := table.Of(f)
	if err != nil || volume.Path != "/" { // a directory of a tmpfs that has others, too
		return v, false, err
	}
	place, err := placeOf(table, source)
	if err != nil {
		return v, false, nil // the mount will say it
	}
	below, ok := place.Within(volume)
	v = engine.MemoryVolume{
		Name: filepath.Base(dir), Below: below, Bytes: fs.Blocks * uint64(fs.Bsize), Inodes: fs.Files,
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
	}
	if v.Bytes > math.MaxInt64 {
		v.Bytes = 0
	}
	return v, ok, nil
}

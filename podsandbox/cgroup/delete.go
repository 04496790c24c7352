package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// Delete removes the group with all groups below it, and the parents that Create
// made once they are empty. Processes that are still in it are killed, and
// waited for until ctx ends. It is idempotent.
func (g *Group) Delete(ctx context.Context) error {
	crashpoint.Here("before cgroup removal")
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := g.removeOnce()
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("delete cgroup %s: %w", g.path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("delete cgroup %s: its processes do not end: %w: %w", g.path, context.DeadlineExceeded, err)
		case <-time.After(pause):
		}
	}
	crashpoint.Here("before removal of cgroup parents")
	err := g.stopScope(ctx)
	for _, m := range g.host.mounts {
		removeParents(m.dir, path.Dir(g.path))
	}
	crashpoint.Here("after cgroup removal")
	return err
}

// discard is Delete of a group that nothing was started in.
func (g *Group) discard() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = g.Delete(ctx)
}

// removeOnce tries to remove the group in each hierarchy. It returns EBUSY when
// it had to kill, or the dead are not gone yet.
func (g *Group) removeOnce() error {
	var errs []error
	for _, root := range g.Paths() {
		var dirs []string // parents first
		_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil // what is gone meanwhile needs no removal
		})
		for _, dir := range slices.Backward(dirs) {
			err := unix.Rmdir(dir)
			if errors.Is(err, unix.EBUSY) {
				if killErr := killAll(dir); killErr != nil {
					return killErr
				}
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, &os.PathError{Op: "rmdir", Path: dir, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

// killAll sends SIGKILL to the processes of one directory. To kill itself is
// refused: a daemon in its pod's group is a mistake of its service's set-up.
func killAll(dir string) error {
	pids, err := processes(dir)
	if err != nil {
		return err
	}
	if slices.Contains(pids, os.Getpid()) {
		return fmt.Errorf("this process is in %s: %w", dir, errdefs.ErrFailedPrecondition)
	}
	if len(pids) > 0 && writeFile(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return nil
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Still listed: then the descriptor is not that of a later process
		// elsewhere, which got the same pid.
		if now, err := processes(dir); err == nil && slices.Contains(now, pid) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
	return nil
}

func processes(dir string) (pids []int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if isGone(err) {
		return nil, nil
	}
	for field := range strings.FieldsSeq(string(raw)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// removeParents removes the empty parents that Create made, from the inside out.
func removeParents(root, parent string) {
	for ; parent != "/"; parent = path.Dir(parent) {
		dir := filepath.Join(root, parent)
		var mark [8]byte
		if _, err := unix.Getxattr(dir, madeMark, mark[:]); err != nil && parent != defaultParent {
			return
		}
		if unix.Rmdir(dir) != nil {
			return
		}
	}
}

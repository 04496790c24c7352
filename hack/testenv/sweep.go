package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sweep removes what is left of the environment by force, without the daemon. It
// goes on after a step that fails.
func (e *Env) sweep() error {
	return errors.Join(
		e.killProcesses(),
		UnmountBelow(e.Dir),
		e.removeBridge(),
		e.removeRules(),
		e.RemoveCgroups(),
	)
}

// killProcesses kills until none is left, for at most five seconds.
func (e *Env) killProcesses() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		pids, err := e.pids()
		if err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			e.killOne(pid)
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("kill processes: still there: %v", pids)
		}
	}
}

// killOne holds the process by a pidfd and looks again whether it is ours before
// it signals: the pid may have been reused since the list was made.
func (e *Env) killOne(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if again, err := e.pids(); err == nil && slices.Contains(again, pid) {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// UnmountBelow takes off whatever is mounted below a folder.
func UnmountBelow(dir string) error {
	paths, err := MountsBelow(dir)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	var errs []error
	for _, p := range slices.Backward(paths) { // what is mounted on top first
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func (e *Env) removeBridge() error {
	ports, err := e.links()
	if err != nil {
		return fmt.Errorf("remove bridge: %w", err)
	}
	for _, name := range append(ports, e.Name) {
		l, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(l)
		}
		// The end of a pod's namespace takes its links along, in its own time.
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link %s: %w", name, err)
		}
	}
	return nil
}

// removeRules deletes the environment's rules from iptables and ip6tables. The
// portmap and bridge plugins use nftables only where iptables is absent, and then
// in tables of their own, which are not touched here.
func (e *Env) removeRules() error {
	own, err := e.ownChains()
	errs := []error{err}
	for _, v := range []string{"iptables", "ip6tables"} {
		text, err := output(v + "-save")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		script := e.restoreScript(text, own)
		if script == "" {
			continue
		}
		cmd := exec.Command(v+"-restore", "--noflush", "--wait", "5")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove rules of %s: %w: %s", e.Name, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}

// MakeCgroups makes the parent, in every hierarchy; otherwise the first pod does. A
// kubelet wants to find it.
func (e *Env) MakeCgroups() error {
	roots, err := cgroupRoots()
	if err != nil {
		return fmt.Errorf("make cgroups: %w", err)
	}
	for _, root := range roots {
		dir := filepath.Join(root, e.CgroupParent)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroups: %w", err)
		}
		// A new cpuset of v1 has no CPUs, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(root, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), b, 0o644)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("make cgroups: %w", err)
			}
		}
	}
	return nil
}

// RemoveCgroups removes the parent and what is below it, in every hierarchy.
func (e *Env) RemoveCgroups() error { return RemoveCgroups(e.CgroupParent) }

// RemoveCgroups removes a cgroup and what is below it, in every hierarchy.
func RemoveCgroups(parent string) error {
	dirs, err := Cgroups(parent)
	errs := []error{err}
	for _, d := range slices.Backward(dirs) {
		errs = append(errs, removeCgroup(d))
	}
	return errors.Join(errs...)
}

// Cgroups lists a cgroup and those below it, in every hierarchy, parents first.
func Cgroups(parent string) ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var dirs []string
	for _, root := range roots {
		filepath.WalkDir(filepath.Join(root, parent), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // gone meanwhile
		})
	}
	return dirs, nil
}

// removeCgroup retries for a second: a cgroup is busy until the last process in it
// has been reaped.
func removeCgroup(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
}

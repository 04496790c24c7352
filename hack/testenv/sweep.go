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
		e.unmountAll(),
		e.removeBridge(),
		e.removeRules(),
		e.removeCgroups(),
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

func (e *Env) unmountAll() error {
	paths, err := e.mounts()
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

// removeCgroups removes the parent and what is below it, in every hierarchy.
func (e *Env) removeCgroups() error {
	roots, err := cgroupRoots()
	if err != nil {
		return fmt.Errorf("remove cgroups: %w", err)
	}
	var errs []error
	for _, root := range roots {
		var dirs []string
		filepath.WalkDir(filepath.Join(root, e.CgroupParent), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			if err := removeCgroup(d); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
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

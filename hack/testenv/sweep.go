package testenv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sweep removes what is left of the environment by force, without the daemon. It
// goes on after a step that fails.
func (p *footprint) sweep() error {
	return errors.Join(
		p.killProcesses(),
		UnmountBelow(p.layout.Dir),
		p.removeBridge(),
		p.firewall.remove(),
		p.layout.RemoveCgroups(),
	)
}

// killProcesses kills until none is left, for at most five seconds.
func (p *footprint) killProcesses() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		pids, err := p.pids()
		if err != nil {
			return fmt.Errorf("kill processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			p.killOne(pid)
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("kill processes: still there: %v", pids)
		}
	}
}

// killOne holds the process by a pidfd and looks again whether it is ours before
// it signals: the pid may have been reused since the list was made.
func (p *footprint) killOne(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if again, err := p.pids(); err == nil && slices.Contains(again, pid) {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// UnmountBelow takes off whatever is mounted below a directory.
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

func (p *footprint) removeBridge() error {
	ports, err := p.links()
	if err != nil {
		return fmt.Errorf("remove bridge: %w", err)
	}
	for _, name := range append(ports, p.layout.Name) {
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

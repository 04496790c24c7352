package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// moveTo moves a process, which is the first of its pid namespace, and all others of that
// namespace into cgroups: one directory for each controller, or the one of version 2. What
// they fork meanwhile is born there, or found at the next look.
func (p *process) moveTo(cgroups []string) error {
	own, err := p.procDir()
	if err != nil {
		return fmt.Errorf("find the processes to move: %w", err)
	}
	defer own.close()
	namespace, err := own.pidNamespace()
	if err != nil {
		return fmt.Errorf("find the processes to move: %w", err)
	}
	moved := map[int]bool{}
	for {
		before := len(moved)
		var failed error
		err := eachProcess(func(d *procDir) error {
			if failed != nil || moved[d.pid] {
				return nil
			}
			ns, err := d.pidNamespace()
			if err != nil || ns != namespace {
				return err
			}
			moved[d.pid] = true
			failed = joinAsProcess(d.pid, cgroups)
			return nil
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		if len(moved) == before {
			return nil
		}
	}
}

// pidNamespace identifies the pid namespace that the process is in.
func (d *procDir) pidNamespace() (fileID, error) {
	st, err := d.stat("ns/pid")
	return fileID{st.Dev, st.Ino}, err
}

// joinAsProcess moves one process with all its threads. One that has ended is no error.
func joinAsProcess(pid int, cgroups []string) error {
	for _, path := range cgroups {
		err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %d to cgroup: %w", pid, err)
		}
	}
	return nil
}

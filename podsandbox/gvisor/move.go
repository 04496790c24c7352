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
	namespace, err := pidNamespaceFile(p.pid)
	if err != nil {
		return fmt.Errorf("find the processes to move: %w", err)
	}
	moved := map[int]bool{}
	for {
		before := len(moved)
		var failed error
		err := eachProcess(func(pid int) {
			if ns, err := pidNamespaceFile(pid); failed != nil || moved[pid] || err != nil || ns != namespace {
				return
			}
			moved[pid] = true
			failed = joinAsProcess(pid, cgroups)
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		if len(moved) == before {
			return nil
		}
	}
}

// pidNamespaceFile identifies the pid namespace that a process is in.
func pidNamespaceFile(pid int) (fileID, error) {
	return identify("/proc/" + strconv.Itoa(pid) + "/ns/pid")
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

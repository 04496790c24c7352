package gvisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Finder finds the processes of this engine's sandboxes, without an Engine.
type Finder struct{}

// Find implements engine.Finder. It finds also processes whose program's file is gone. A
// process is one when it runs a file with the name of a staged program, root of the
// node made it, and its command line names the sandbox and a directory below dir.
func (Finder) Find(dir string, pods map[string]bool) ([]engine.Found, error) {
	var found []engine.Found
	err := eachProcess(func(pid int) {
		start, err := startTime(pid)
		if err != nil {
			return
		}
		if f, ok := sandboxProcess(pid, dir, pods); ok {
			f.Process = engine.Process{PID: pid, StartTime: start}
			f.Kill = func(ctx context.Context) error { return killFound(ctx, f.Process) }
			found = append(found, f)
		}
	})
	return found, err
}

func sandboxProcess(pid int, dir string, pods map[string]bool) (f engine.Found, ok bool) {
	argv := argsOf(pid)
	var gofer bool
	f.Sandbox, gofer = sandboxOfArgs(argv)
	f.Role = "sandbox"
	if gofer {
		f.Role = "gofer"
	}
	pod := podOfCgroup(pid)
	if pod != "" {
		f.Sandbox = pod
	}
	if pods[pod] {
		return f, isFirst(pid) // what others there are ends with it
	}
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil || !strings.HasPrefix(filepath.Base(exe), stagedPrefix) {
		return f, false
	}
	ours := false
	for _, arg := range argv[1:] {
		root, is := strings.CutPrefix(arg, "--root=")
		ours = ours || is && strings.HasPrefix(root, filepath.Clean(dir)+"/")
	}
	named, _ := sandboxOfArgs(argv)
	return f, ours && named != "" && madeByRoot(pid)
}

// isFirst reports whether a process is the first one of a pid namespace.
func isFirst(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if numbers, is := strings.CutPrefix(line, "NSpid:"); is {
			fields := strings.Fields(numbers)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// madeByRoot reports whether the user namespace of a process is the node's or was
// made by the node's root, and the process is root there.
func madeByRoot(pid int) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	ns, err := os.Open(proc + "/ns/user")
	if err != nil {
		return false
	}
	defer ns.Close()
	own, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return false
	}
	theirs, err := ns.Stat()
	if err != nil {
		return false
	}
	if os.SameFile(own, theirs) {
		st, err := os.Stat(proc)
		return err == nil && st.Sys().(*syscall.Stat_t).Uid == 0
	}
	owner := uint32(1)
	err = control(ns, func(fd int) (err error) {
		owner, err = unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
		return err
	})
	return err == nil && owner == 0
}

func killFound(ctx context.Context, id engine.Process) error {
	p, err := openProcess(id)
	if err != nil {
		return nil // gone
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill process %d: %w", id.PID, ctx.Err())
	}
}

package idmap

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// UserNamespace makes a user namespace with a mapping. It lives as long as the
// returned file, or what was made with it. A mapping that the kernel does not
// take is errdefs.ErrInvalidArgument.
func UserNamespace(m Mapping) (*os.File, error) {
	type result struct {
		ns  *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		// The helper is traced by the thread that forks it, and dies with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ns, err := forkNamespace(m)
		done <- result{ns, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("make user namespace: %w", r.err)
	}
	return r.ns, nil
}

// forkNamespace takes the namespace of a child. A user namespace is made by a
// process of one thread only, which no Go program is. The child is traced, so the
// kernel stops it before the first instruction of its program.
func forkNamespace(m Mapping) (*os.File, error) {
	uids, gids := m.SysProc()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"cri-sandbox-userns"}, &syscall.ProcAttr{
		Dir: "/",
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: uids, GidMappings: gids,
			Ptrace: true, Pdeathsig: syscall.SIGKILL,
		},
	})
	if err == syscall.EINVAL || err == syscall.EPERM {
		return nil, fmt.Errorf("mapping %v, %v: %w: %w", m.UIDs, m.GIDs, err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	// A child that was not waited for keeps its pid, so this is its namespace.
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, werr := unix.Wait4(pid, nil, 0, nil); werr != unix.EINTR {
			break
		}
	}
	return ns, err
}

// SysProc is the form in which a child process is given the mapping.
func (m Mapping) SysProc() (uids, gids []syscall.SysProcIDMap) { return sysMap(m.UIDs), sysMap(m.GIDs) }

func sysMap(ranges []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(ranges))
	for i, r := range ranges {
		out[i] = syscall.SysProcIDMap{ContainerID: int(r.ContainerID), HostID: int(r.HostID), Size: int(r.Size)}
	}
	return out
}

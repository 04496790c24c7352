package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// onThrowawayThread runs f on a thread that ends with it: what f changes about
// its thread (cgroups, namespaces) needs no restoring and cannot leak.
func onThrowawayThread(f func() error) error {
	result := make(chan error, 1)
	run := func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread is never ended by the runtime, and would
			// keep what f joins alive. Holding it, another goroutine gets another
			// thread.
			inner := make(chan error, 1)
			go func() { inner <- onThrowawayThread(f) }()
			result <- <-inner
			runtime.UnlockOSThread()
			return
		}
		result <- f()
		// Returns still locked: the runtime ends the thread.
	}
	go run()
	return <-result
}

// inNetNS runs f on a throw-away thread inside a network namespace.
func inNetNS(netns *os.File, f func() error) error {
	return onThrowawayThread(func() error {
		if err := joinNetNS(netns); err != nil {
			return err
		}
		return f()
	})
}

// joinNetNS moves the calling thread.
func joinNetNS(netns *os.File) error {
	if err := control(netns, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("join network namespace %s: %w", netns.Name(), err)
	}
	return nil
}

// inMountNS runs f on a throw-away thread inside the mount namespace of a process.
func inMountNS(p *process, f func() error) error {
	return onThrowawayThread(func() error {
		// A thread that shares its root and working directory cannot move.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the shared root directory: %w", err)
		}
		err := control(p.pidfd, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNS) })
		if isGone(err) {
			return lostf("process %d has ended", p.pid)
		}
		if err != nil {
			return fmt.Errorf("join mount namespace of process %d: %w", p.pid, err)
		}
		return f()
	})
}

// newEmptyNetNS returns a network namespace with nothing but a loopback that is
// down. It lives as long as the descriptor or a process in it.
func newEmptyNetNS() (*os.File, error) {
	var f *os.File
	err := onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create empty network namespace: %w", err)
	}
	return f, nil
}

// joinCgroups moves the calling thread into cgroups of version 1, where
// membership is per thread: a child that it forks is born there, and the daemon
// itself is not moved.
func joinCgroups(paths []string) error {
	tid := strconv.Itoa(unix.Gettid())
	for _, path := range paths {
		if err := os.WriteFile(filepath.Join(path, "tasks"), []byte(tid), 0); err != nil {
			return fmt.Errorf("join cgroup %s: %w", path, err)
		}
	}
	return nil
}

// isUnifiedCgroup reports whether the paths are one cgroup of version 2, which
// has no file "tasks".
func isUnifiedCgroup(paths []string) bool {
	if len(paths) != 1 {
		return false
	}
	_, err := os.Lstat(filepath.Join(paths[0], "tasks"))
	return os.IsNotExist(err)
}

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// process is a process of a sandbox: the Sentry, or a gofer. It is named by a
// pidfd, so that nothing that is done to it reaches another process that got its pid.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
	pidfd *os.File

	done    chan struct{}   // closed when the process has ended and, if a child, was reaped
	life    context.Context // ends with it, for context.AfterFunc
	status  unix.WaitStatus // valid once done is closed, for a child
	child   bool
	dropped atomic.Bool
}

// newProcess takes ownership of the pidfd, which does not block, and begins to watch
// it. A child is reaped by its pid; for others, init does that.
func newProcess(pid int, start uint64, pidfd *os.File, child bool) *process {
	life, end := context.WithCancel(context.Background())
	p := &process{pid: pid, start: start, pidfd: pidfd, child: child, done: make(chan struct{}), life: life}
	go func() { defer end(); p.watch() }()
	return p
}

// lostError says that a process is not the one that it is taken for, or is no more.
type lostError struct{ what string }

func (e *lostError) Error() string { return e.what }

func lostf(format string, args ...any) error { return &lostError{fmt.Sprintf(format, args...)} }

func isLost(err error) bool {
	var lost *lostError
	return errors.As(err, &lost)
}

// openProcess watches a process that is not a child of this daemon. The process
// it returns is the one that had the start time. A *lostError says that there is none
// any more; another error says nothing about that.
func openProcess(id engine.Process) (*process, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	switch err {
	case nil:
	case unix.ESRCH:
		return nil, lostf("process %d has ended", id.PID)
	case unix.EINVAL, unix.ENOENT: // it is the number of another process's thread
		return nil, lostf("pid %d belongs to another process", id.PID)
	default:
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	_ = unix.SetNonblock(fd, true) // lets the runtime's poller watch it
	p := &process{pid: id.PID, start: id.StartTime, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	if err := p.checkStart(); err != nil {
		p.pidfd.Close()
		return nil, err
	}
	return newProcess(p.pid, p.start, p.pidfd, false), nil
}

func (p *process) checkStart() error {
	dir, err := p.procDir()
	if err != nil {
		return err
	}
	defer dir.close()
	start, err := dir.start()
	switch {
	case isGone(err):
		return lostf("process %d has ended", p.pid)
	case err != nil:
		return err
	case start != p.start:
		return lostf("pid %d belongs to another process", p.pid)
	}
	return nil
}

// procDir opens /proc/PID of the process. It is a *lostError when that has ended.
func (p *process) procDir() (*procDir, error) {
	dir, err := openProcDir(p.pid)
	if err == nil {
		// As long as it was not reaped its pid is nobody else's, so that what was
		// opened before is its own.
		if err = p.send(0); err != nil {
			dir.close()
		}
	}
	switch {
	case isGone(err):
		return nil, lostf("process %d has ended", p.pid)
	case err != nil:
		return nil, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	return dir, nil
}

// takeFD returns another descriptor of what the process has open under a number.
func (p *process) takeFD(n int) (int, error) {
	taken := -1
	err := control(p.pidfd, func(fd int) (err error) {
		taken, err = unix.PidfdGetfd(fd, n, 0)
		return err
	})
	switch {
	case isGone(err):
		return -1, lostf("process %d has ended", p.pid)
	case err != nil:
		return -1, fmt.Errorf("take descriptor %d of process %d: %w", n, p.pid, err)
	}
	return taken, nil
}

func (p *process) identity() engine.Process {
	return engine.Process{PID: p.pid, StartTime: p.start}
}

// watch waits for the end of the process on the runtime's poller: it costs a
// goroutine and no thread.
func (p *process) watch() {
	for !p.awaitEnd() {
		if p.dropped.Load() {
			p.pidfd.Close()
			return
		}
		time.Sleep(100 * time.Millisecond) // it could not be polled
	}
	if p.child {
		// Returns at once: the process has ended. Waits for this pid alone.
		for {
			_, err := unix.Wait4(p.pid, &p.status, 0, nil)
			if err != unix.EINTR {
				break
			}
		}
	}
	p.pidfd.Close()
	close(p.done)
}

// awaitEnd reports whether the process has ended; it may return before that.
func (p *process) awaitEnd() bool {
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	_ = rc.Read(func(fd uintptr) bool {
		var err error
		ended, err = isReadable(fd)
		return ended || err != nil
	})
	return ended
}

// drop ends the watch of a process that is not a child. done stays open.
func (p *process) drop() {
	p.dropped.Store(true)
	_ = p.pidfd.SetReadDeadline(time.Unix(1, 0))
}

// signal sends through the pidfd; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	if err := p.send(sig); !isGone(err) {
		return err
	}
	return nil
}

func (p *process) send(sig unix.Signal) error {
	return control(p.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// describeEnd says how a child has ended; done must be closed.
func (p *process) describeEnd() string {
	switch {
	case !p.child:
		return "ended"
	case p.status.Signaled():
		return fmt.Sprintf("was killed by signal %d", p.status.Signal())
	}
	return fmt.Sprintf("ended with status %d", p.status.ExitStatus())
}

// isReadable reports whether a descriptor is readable or has hung up.
func isReadable(fd uintptr) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

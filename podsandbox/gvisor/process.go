package gvisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// process is a process of a sandbox: the Sentry, or a gofer. It is named by a
// pidfd, so that a signal never reaches another process that got its pid.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
	pidfd *os.File

	done   chan struct{}   // closed when the process has ended and, if a child, was reaped
	life   context.Context // ends with it, for context.AfterFunc
	status unix.WaitStatus // valid once done is closed, for a child
	child  bool
}

// newProcess takes ownership of the pidfd and begins to watch it. A child is
// reaped by its pid; for others, init does that.
func newProcess(pid int, pidfd *os.File, child bool) (*process, error) {
	start, err := startTime(pid)
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	p := &process{pid: pid, start: start, pidfd: pidfd, child: child, done: make(chan struct{}), life: life}
	go func() { defer end(); p.watch() }()
	return p, nil
}

// openProcess watches a process that is not a child of this daemon. The process
// it returns is the one that had the start time, or the error is NotFound.
func openProcess(id engine.Process) (*process, error) {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w: %w", id.PID, err, errdefs.ErrNotFound)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// Read after the pidfd was opened: if it matches, the pidfd is that process.
	start, err := startTime(id.PID)
	if err != nil || start != id.StartTime {
		pidfd.Close()
		return nil, fmt.Errorf("open process %d: pid belongs to another process: %w", id.PID, errdefs.ErrNotFound)
	}
	return newProcess(id.PID, pidfd, false)
}

func (p *process) identity() engine.Process {
	return engine.Process{PID: p.pid, StartTime: p.start}
}

// watch waits for the end of the process on the runtime's poller: it costs a
// goroutine and no thread.
func (p *process) watch() {
	defer close(p.done)
	if rc, err := p.pidfd.SyscallConn(); err == nil {
		_ = rc.Read(func(fd uintptr) bool { return pollIn(fd, 0) })
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
}

// signal sends through the pidfd; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil // closed: the process has ended
	}
	var sendErr error
	if err := rc.Control(func(fd uintptr) { sendErr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return nil
	}
	if sendErr == unix.ESRCH {
		return nil
	}
	return sendErr
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

// pollIn reports whether the descriptor is readable, or has hung up, within the
// given milliseconds.
func pollIn(fd uintptr, ms int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if err != unix.EINTR {
			return err != nil || n > 0
		}
	}
}

// startTime reads field 22 of /proc/PID/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// The second field is the name in parentheses, which may hold anything.
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: unexpected form of stat", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

package terminal

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spliceSize is the most that one splice moves, in bytes. A terminal's buffer
// holds about as much.
const spliceSize = 64 << 10

// relay moves what is printed into a pipe, for as long as the other side is open.
type relay struct {
	terminal *Terminal
	pipe     *os.File // in the runtime's poller
	conn     syscall.RawConn

	done     chan struct{} // closed when it has ended
	haltOnce sync.Once
}

// Relay begins to move what is printed into a pipe, which the Terminal owns from
// now on, also on error. It is called at most once, before anything else.
func (t *Terminal) Relay(pipe *os.File) error {
	file, err := pollable(pipe)
	if err != nil {
		return err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return err
	}
	t.relay = &relay{terminal: t, pipe: file, conn: conn, done: make(chan struct{})}
	go t.relay.run()
	return nil
}

// Finish waits until all that was printed is in the pipe, which is known when the
// other side has been closed everywhere, and closes. It is called when nothing
// runs on the terminal any more; should somebody hold it open all the same, ctx
// bounds the wait.
func (t *Terminal) Finish(ctx context.Context) error {
	if t.relay != nil {
		select {
		case <-t.relay.done:
		case <-ctx.Done():
		}
	}
	return t.Close()
}

func (r *relay) run() {
	defer close(r.done)
	for {
		full, err := r.step()
		if err == nil && full {
			err = r.awaitRoom()
		}
		if err != nil {
			return // hung up (EIO), or halted
		}
	}
}

// step moves what there is. It returns when it has, or when the pipe is full.
func (r *relay) step() (full bool, err error) {
	rerr := r.terminal.conn.Read(func(master uintptr) bool {
		cerr := r.conn.Control(func(pipe uintptr) {
			var n int64
			n, err = splice(int(master), int(pipe))
			if err == nil && n == 0 {
				err = unix.EIO
			}
			full = errors.Is(err, unix.EAGAIN) && !writable(int(pipe))
		})
		if cerr != nil {
			err = cerr
		}
		return full || !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case rerr != nil:
		return false, rerr
	case full:
		return true, nil
	}
	return false, err
}

// splice moves bytes within one system call, which finishes what it has begun
// even when the caller is killed.
func splice(from, to int) (int64, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, spliceSize, unix.SPLICE_F_NONBLOCK)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// awaitRoom waits until the pipe takes bytes again.
func (r *relay) awaitRoom() error {
	return r.conn.Write(func(pipe uintptr) bool { return writable(int(pipe)) })
}

func writable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// halt ends the relay between two moves. It is idempotent.
func (r *relay) halt() {
	r.haltOnce.Do(func() {
		past := time.Unix(1, 0)
		_ = r.terminal.master.SetReadDeadline(past)
		_ = r.pipe.SetWriteDeadline(past)
	})
	<-r.done
}

func (r *relay) close() { r.pipe.Close() }

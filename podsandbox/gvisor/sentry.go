package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// sentry is the process of a sandbox. It owns what this daemon holds open of it, and
// knows how it has ended and what it said last. How to speak with it is the business of
// controlPlane.
type sentry struct {
	dir      string // Config.Dir; that of the machine until it is bound
	root     string // id of the root container, which is the machine's; see prepare.go
	proc     *process
	panicLog *os.File // see logs.go
	fdStore  *fdStore // nil after the adoption of a sandbox without one

	mu sync.Mutex
	// ring is the pin ring; nil without one, after an adoption and after close.
	ring *os.File // +checklocks:mu
}

// requireAlive gives calls on a dead sandbox one uniform error.
func (s *sentry) requireAlive() error {
	if s.proc.ended() {
		return fmt.Errorf("the sandbox process has ended: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// diedWithin waits a moment for the end of the process: its sockets close a
// little before its end can be seen.
func (s *sentry) diedWithin(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.proc.done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// deathError says how the process has ended and what it said last.
func (s *sentry) deathError() error {
	how := "does not answer"
	if s.proc.ended() {
		how = s.proc.describeEnd()
	}
	return fmt.Errorf("the sandbox process %s; %s: %w", how, s.quotePanicLog(), errdefs.ErrUnavailable)
}

// awaitBooted waits for the one byte that says that the sandbox answers calls.
func (s *sentry) awaitBooted(ctx context.Context, booted *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = booted.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := booted.Read(make([]byte, 1))
	switch {
	case n == 1:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !os.IsTimeout(err):
		// The pipe has ended, so the process is about to.
		select {
		case <-s.proc.done:
		case <-ctx.Done():
		}
	}
	return s.deathError()
}

// setOOMScoreAdj is no error for one that has ended.
func (s *sentry) setOOMScoreAdj(score int) error {
	dir, err := s.proc.procDir()
	if err == nil {
		err = dir.setOOMScoreAdj(score)
		dir.close()
	}
	if isLost(err) || isGone(err) {
		return nil
	}
	return err
}

// moveFiles takes what the sandbox has on disk to another directory. A socket is found
// by its file, wherever that was when it was bound.
func (s *sentry) moveFiles(to string) error {
	for _, name := range []string{bootLogName, controlSocketName} {
		err := os.Rename(filepath.Join(s.dir, name), filepath.Join(to, name))
		if err != nil && (name == controlSocketName || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("move to the directory of the pod: %w", err)
		}
	}
	s.dir = to
	return nil
}

// makeRing makes the pin ring, where the host allows one.
func (s *sentry) makeRing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring = newPinRing()
}

// lendRing gives a child the pin ring, if there is one.
func (s *sentry) lendRing(d *donation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring != nil {
		d.lend("pin-ring-fd", s.ring)
	}
}

// kill ends the process, and returns when it has ended.
func (s *sentry) kill(ctx context.Context) error {
	crashpoint.Here("before sandbox kill")
	if err := s.proc.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("signal process %d: %w", s.proc.pid, err)
	}
	crashpoint.Here("after sandbox kill")
	select {
	case <-s.proc.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of process %d: %w", s.proc.pid, ctx.Err())
	}
}

// end kills a sandbox without containers.
func (s *sentry) end() {
	_ = s.proc.signal(unix.SIGKILL)
	<-s.proc.done
	s.close()
}

// close closes what the daemon holds open. It may be called more than once.
func (s *sentry) close() {
	s.mu.Lock()
	ring := s.ring
	s.ring = nil
	s.mu.Unlock()
	ring.Close() // nil answers an error
	if s.fdStore != nil {
		s.fdStore.close()
	}
	s.panicLog.Close()
}

package logs

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

// run moves one stream until the pumps are stopped. What fails is tried again
// for as long as that takes; the container then blocks at its full pipe.
func (s *Streams) run(st *stream) {
	defer s.pumps.Done()
	pause, failed := firstPause, false
	for {
		var err error
		stopped := st.conn.Read(func(fd uintptr) bool {
			var empty bool
			empty, err = s.step(st, int(fd))
			return !empty
		})
		if stopped != nil {
			return
		}
		s.report(err, &failed)
		if err == nil {
			pause = firstPause
			continue
		}
		select {
		case <-s.stop:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// step completes what is unfinished, takes one round from the FIFO and frames
// it. It reports an empty FIFO.
func (s *Streams) step(st *stream, fd int) (empty bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, errClosed
	}
	if err := s.drainLocked(st); err != nil {
		return false, err
	}
	if err := s.takeLocked(st, fd); errors.Is(err, unix.EAGAIN) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	return false, s.drainLocked(st)
}

// report tells Config.OnError of the first of a row of failures. Those of the
// two streams mostly have one cause, the log or the state directory, and count as
// one row, which ends when a stream that had failed works again.
func (s *Streams) report(err error, failed *bool) {
	switch {
	case err == nil && *failed:
		*failed = false
		s.failing.Store(false)
	case err != nil:
		*failed = true
		if !s.failing.Swap(true) {
			s.cfg.OnError(err)
		}
	}
}

// halt stops the pumps and waits for the batches they are in. It is idempotent.
func (s *Streams) halt() {
	s.stopOnce.Do(func() {
		close(s.stop)
		for _, st := range s.streams {
			if st != nil {
				// Ends the wait in the poller, now and for good.
				_ = st.fifo.SetReadDeadline(time.Unix(1, 0))
			}
		}
	})
	s.pumps.Wait()
}

// finish does the pump's work to the end: until the FIFO is empty and all of it
// is in the log. It tries again until ctx ends, but on a file system that is
// read-only, which is not a matter of seconds.
func (s *Streams) finish(ctx context.Context, st *stream) error {
	failed := false
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := s.finishOnce(ctx, st)
		s.report(err, &failed)
		if err == nil || errors.Is(err, errClosed) || errors.Is(err, unix.EROFS) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (s *Streams) finishOnce(ctx context.Context, st *stream) error {
	var err error
	controlled := st.conn.Control(func(fd uintptr) {
		for empty := false; !empty && err == nil; {
			if empty, err = s.step(st, int(fd)); err == nil {
				err = ctx.Err()
			}
		}
	})
	if err == nil && controlled != nil {
		err = errClosed
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.journal == nil || s.journal.streams[st.index].lineLen == 0 {
		return nil
	}
	return s.writeBatchLocked(st, true)
}

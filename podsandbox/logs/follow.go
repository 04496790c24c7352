package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxBacklog is how many bytes a follower may lag behind.
const maxBacklog = 4 << 20

// ErrLagged is what a follower gets that did not take output as fast as it came.
// The pump does not wait for followers: a log never stands still because somebody
// stopped to read.
var ErrLagged = fmt.Errorf("output came faster than it was read, %d bytes are waiting: %w", maxBacklog, errdefs.ErrResourceExhausted)

// Chunk is output of one of the container's streams, as it was printed. It must
// not be changed.
type Chunk struct {
	Stderr bool
	Data   []byte
}

// Follower gets what a container prints from Follow on, in the order in which it
// is read. Its methods may be called from any goroutine, Next from one at a time.
type Follower struct {
	streams *Streams
	dropped chan struct{} // closed with ErrLagged

	mu     sync.Mutex
	wake   chan struct{} // holds a token when there may be something new
	chunks []Chunk       // +checklocks:mu
	// Of all chunks.
	size int // +checklocks:mu
	// Why nothing follows.
	err error // +checklocks:mu
}

// Follow begins to follow. The caller closes the follower.
func (s *Streams) Follow() (*Follower, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	f := &Follower{streams: s, dropped: make(chan struct{}), wake: make(chan struct{}, 1)}
	if s.followers == nil {
		s.followers = map[*Follower]struct{}{}
	}
	s.followers[f] = struct{}{}
	return f, nil
}

// Next waits for output. The error is io.EOF after the last, ErrLagged, that of
// ctx, or says that the streams were closed for a restart.
func (f *Follower) Next(ctx context.Context) (Chunk, error) {
	for {
		if c, err := f.take(); err != nil || c.Data != nil {
			return c, err
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return Chunk{}, context.Cause(ctx)
		}
	}
}

// Dropped is closed when the follower lagged. It tells one that is busy with what
// it got before, such as writing to a client that does not read.
func (f *Follower) Dropped() <-chan struct{} { return f.dropped }

func (f *Follower) take() (Chunk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.chunks) == 0 {
		return Chunk{}, f.err
	}
	c := f.chunks[0]
	f.chunks[0] = Chunk{}
	f.chunks = f.chunks[1:]
	f.size -= len(c.Data)
	return c, nil
}

// put adds a chunk and reports whether the follower can have more.
func (f *Follower) put(c Chunk) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.signal()
	if f.size+len(c.Data) > maxBacklog {
		f.chunks, f.size, f.err = nil, 0, ErrLagged
		close(f.dropped) // once: who is dropped gets no more
		return false
	}
	f.chunks = append(f.chunks, c)
	f.size += len(c.Data)
	return true
}

func (f *Follower) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.signal()
	if f.err == nil {
		f.err = err
	}
}

func (f *Follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Close ends the following. It is idempotent.
func (f *Follower) Close() {
	f.streams.mu.Lock()
	defer f.streams.mu.Unlock()
	delete(f.streams.followers, f)
}

// takeLocked takes one round from a FIFO, for the log and for who follows.
//
// +checklocks:s.mu
func (s *Streams) takeLocked(st *stream, fd int) error {
	if s.journal == nil && len(s.followers) > 0 {
		return s.passLocked(st, fd)
	}
	n, err := st.take(fd, pipeSize)
	if err != nil || len(s.followers) == 0 {
		return err
	}
	// The spool still holds it: it is cut only after it was framed.
	data := make([]byte, n)
	if _, err := st.spool.ReadAt(data, st.size-int64(n)); err != nil {
		s.endFollowersLocked(fmt.Errorf("read spool: %w", err))
		return nil // the log goes on
	}
	s.publishLocked(st, data)
	return nil
}

// passLocked takes output that has no log.
//
// +checklocks:s.mu
func (s *Streams) passLocked(st *stream, fd int) error {
	data := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, data)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EAGAIN
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		s.publishLocked(st, data[:n])
		return nil
	}
}

// +checklocks:s.mu
func (s *Streams) publishLocked(st *stream, data []byte) {
	for f := range s.followers {
		if !f.put(Chunk{Stderr: st.index == stderr, Data: data}) {
			delete(s.followers, f)
		}
	}
}

// +checklocks:s.mu
func (s *Streams) endFollowersLocked(err error) {
	for f := range s.followers {
		f.end(err)
		delete(s.followers, f)
	}
}

// endOf is why followers get nothing more.
func endOf(finished bool) error {
	if finished {
		return io.EOF
	}
	return fmt.Errorf("the daemon is stopping: %w", errdefs.ErrUnavailable)
}

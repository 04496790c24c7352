package logs

import (
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// buffers are what a batch needs while it is written, and nothing keeps after.
type buffers struct{ in, out []byte }

var bufferPool = sync.Pool{New: func() any { // +checklocksignore: it needs no lock
	return &buffers{
		in:  make([]byte, 0, maxContent+maxBatchIn),
		out: make([]byte, 0, maxBatchOut+maxContent+128),
	}
}}

// drainLocked frames all that the spool of a stream holds, and cuts the spool.
// The batch in flight, of whichever stream, goes first.
//
// +checklocks:s.mu
func (s *Streams) drainLocked(st *stream) error {
	if s.journal == nil {
		st.size = 0 // /dev/null: nothing is kept
		return nil
	}
	if err := s.settleLocked(); err != nil {
		return err
	}
	for s.journal.streams[st.index].done < st.size {
		if err := s.writeBatchLocked(st, false); err != nil {
			return err
		}
	}
	return s.cutLocked(st)
}

// writeBatchLocked frames the next bytes of a spool and writes them to the log;
// with flush, the open line too. No batch is in flight before, and none after
// unless it fails.
//
// +checklocks:s.mu
func (s *Streams) writeBatchLocked(st *stream, flush bool) error {
	buf := bufferPool.Get().(*buffers)
	defer bufferPool.Put(buf)

	next := s.journal.state
	next.batch = batch{
		active: true,
		stream: uint8(st.index),
		flush:  flush,
		end:    min(st.size, next.streams[st.index].done+maxBatchIn),
		nanos:  time.Now().UnixNano(),
	}
	line, end, err := s.composeLocked(buf, next.batch, maxBatchOut)
	if err != nil {
		return err
	}
	next.batch.end = end
	if len(buf.out) > 0 {
		if err := s.openLogLocked(); err != nil {
			return err
		}
		if next.batch.log, next.batch.offset, err = identify(s.log); err != nil {
			return err
		}
		if err := s.journal.put(next); err != nil {
			return err
		}
		crashpoint.Here("before log write")
		if err := writeAt(s.log, buf.out, next.batch.offset); err != nil {
			return err
		}
		crashpoint.Here("after log write")
	}
	if err := s.journal.commit(st.index, end, line); err != nil {
		return err
	}
	crashpoint.Here("after log commit")
	return nil
}

// settleLocked completes the batch that the journal says is in flight: one that
// an earlier daemon was killed in, or an earlier try failed to write.
//
// +checklocks:s.mu
func (s *Streams) settleLocked() error {
	b := s.journal.batch
	if !b.active {
		return nil
	}
	buf := bufferPool.Get().(*buffers)
	defer bufferPool.Put(buf)
	line, end, err := s.composeLocked(buf, b, math.MaxInt)
	if err != nil {
		return err
	}
	target, err := s.targetLocked()
	if err != nil {
		return err
	}
	if err := writeAt(target, buf.out, s.journal.batch.offset); err != nil {
		return err
	}
	if err := s.journal.commit(int(b.stream), end, line); err != nil {
		return err
	}
	if s.rotated != nil {
		s.rotated.Close()
		s.rotated = nil
	}
	return nil
}

// targetLocked returns the file that the batch in flight belongs to. When that
// file is gone, or was emptied below the batch's place, the batch gets a new
// place: the end of the log of now.
//
// +checklocks:s.mu
func (s *Streams) targetLocked() (*os.File, error) {
	b := s.journal.batch
	target := s.rotated
	if target == nil {
		if err := s.openLogLocked(); err != nil {
			return nil, err
		}
		target = s.log
	}
	id, size, err := identify(target)
	if err != nil {
		return nil, err
	}
	if id == b.log && size >= b.offset {
		return target, nil
	}
	return target, s.moveLocked(id, size)
}

// moveLocked gives the batch in flight another place.
//
// +checklocks:s.mu
func (s *Streams) moveLocked(id fileID, offset int64) error {
	next := s.journal.state
	next.batch.log, next.batch.offset = id, offset
	return s.journal.put(next)
}

// cutLocked empties a spool that has been framed to its end. Of its two steps
// the second is repeated when it is missing: until the journal knows of the cut,
// nothing may be taken into the spool.
//
// +checklocks:s.mu
func (s *Streams) cutLocked(st *stream) error {
	done := s.journal.streams[st.index].done
	if done < st.size || (done == st.size && done < cutSize) {
		return nil
	}
	if st.size > 0 {
		if err := st.spool.Truncate(0); err != nil {
			return fmt.Errorf("cut spool: %w", err)
		}
		st.size = 0
	}
	crashpoint.Here("after spool cut")
	next := s.journal.state
	next.streams[st.index].done = 0
	return s.journal.put(next)
}

// composeLocked frames the bytes of a batch into buf.out and returns the line that
// stays open and the end of the bytes covered, which is before b.end only where
// limit stopped it.
//
// +checklocks:s.mu
func (s *Streams) composeLocked(buf *buffers, b batch, limit int) (line []byte, end int64, err error) {
	i := int(b.stream)
	begin := s.journal.streams[i].done
	st := s.streams[i]
	if st == nil || b.end > st.size {
		return nil, 0, fmt.Errorf("batch beyond its spool: %w", errdefs.ErrDataLoss)
	}
	if buf.in, err = s.journal.readLine(buf.in[:0], i); err != nil {
		return nil, 0, err
	}
	held := len(buf.in)
	buf.in = append(buf.in, make([]byte, b.end-begin)...)
	if _, err := st.spool.ReadAt(buf.in[held:], begin); err != nil && err != io.EOF {
		return nil, 0, fmt.Errorf("read spool: %w", err)
	}
	h := newHeader(streamNames[i], b.nanos)
	var used int
	buf.out, used = appendRecords(buf.out[:0], buf.in, h, limit)
	line, end = buf.in[used:], b.end
	if len(line) > 0 && len(buf.out) >= limit && buf.in[used-1] == '\n' && used >= held {
		return nil, begin + int64(used-held), nil
	}
	if b.flush && len(line) > 0 {
		buf.out, line = appendPartial(buf.out, line, h), nil
	}
	return line, end, nil
}

// writeAt writes all of buf; what a failed try has written, the next overwrites.
func writeAt(file *os.File, buf []byte, offset int64) error {
	if _, err := file.WriteAt(buf, offset); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

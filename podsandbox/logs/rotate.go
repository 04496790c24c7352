package logs

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"gvisor.dev/gvisor/pkg/cleanup"
)

// openLogLocked opens the log unless it is open.
//
// +checklocks:s.mu
func (s *Streams) openLogLocked() (err error) {
	if s.log == nil {
		s.log, err = openLog(s.cfg.LogDir, s.cfg.LogPath)
	}
	return err
}

// recover finds the file of the batch in flight before the log is opened, which
// might create a file that gets the same inode. The batch itself is completed
// by the pumps, which can wait for a disk that is full.
func (s *Streams) recover() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.journal == nil || !s.journal.batch.active {
		return nil
	}
	b := s.journal.batch
	if st := s.streams[b.stream]; st == nil || b.end > st.size {
		// Its bytes are gone: no death of a daemon leaves that.
		s.cfg.OnError(fmt.Errorf("recover log %s: batch beyond its spool: %w", s.cfg.LogPath, errdefs.ErrDataLoss))
		next := s.journal.state
		next.batch = batch{}
		return s.journal.put(next)
	}
	s.rotated = findLog(s.cfg.LogPath, b.log)
	return nil
}

// Reopen turns to the file that is at LogPath now, which is made when absent:
// the log has been rotated. A batch that could not be written yet moves there
// whole. After an error the old file stays in use.
func (s *Streams) Reopen() error {
	if s.cfg.LogPath == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("reopen log %s: %w", s.cfg.LogPath, errClosed)
	}
	fresh, err := openLog(s.cfg.LogDir, s.cfg.LogPath)
	if err != nil {
		return fmt.Errorf("reopen log %s: %w", s.cfg.LogPath, err)
	}
	cu := cleanup.Make(func() { fresh.Close() })
	defer cu.Clean()
	if s.settleLocked() != nil {
		if err := s.withdrawLocked(fresh); err != nil {
			return fmt.Errorf("reopen log %s: %w", s.cfg.LogPath, err)
		}
	}
	if s.log != nil {
		s.log.Close()
	}
	s.log = fresh
	cu.Release()
	return nil
}

// withdrawLocked takes the torn end of the batch in flight out of its file, and
// gives the batch a place in another.
//
// +checklocks:s.mu
func (s *Streams) withdrawLocked(to *os.File) error {
	from, b := s.rotated, s.journal.batch
	if from == nil {
		from = s.log
	}
	id, size, err := identify(to)
	if err != nil {
		return err
	}
	if !b.active || id == b.log {
		return nil // nothing is torn, or it is the same file
	}
	if from != nil {
		if was, have, err := identify(from); err == nil && was == b.log && have > b.offset {
			if err := from.Truncate(b.offset); err != nil {
				return fmt.Errorf("withdraw batch: %w", err)
			}
		}
	}
	if err := s.moveLocked(id, size); err != nil {
		return err
	}
	if s.rotated != nil {
		s.rotated.Close()
		s.rotated = nil
	}
	return nil
}

package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"gvisor.dev/gvisor/pkg/cleanup"
)

// Streams are one container's stdio and the pumps behind it. All methods are
// safe for concurrent use.
type Streams struct {
	cfg     Config
	streams [streamCount]*stream // nil where there is no such stream

	stop     chan struct{}
	stopOnce sync.Once
	pumps    sync.WaitGroup
	failing  atomic.Bool

	mu sync.Mutex

	// journal is nil when output is discarded.
	// +checklocks:mu
	journal *journal

	// log is opened when first needed.
	// +checklocks:mu
	log *os.File

	// rotated is the file of the batch that an earlier daemon was killed in, if
	// that is not the log any more. It is closed with that batch.
	// +checklocks:mu
	rotated *os.File

	// +checklocks:mu
	followers map[*Follower]struct{}

	// +checklocks:mu
	closed bool

	// +checklocks:mu
	finished bool
}

var errClosed = fmt.Errorf("streams are closed: %w", errdefs.ErrFailedPrecondition)

// Create makes the FIFOs, opens the log and starts to pump. What an interrupted
// Create left is replaced; a complete set of files is errdefs.ErrAlreadyExists.
// After an error nothing is left but the log file.
func Create(cfg Config) (*Streams, error) {
	if _, err := os.Lstat(journalPath(cfg.Dir)); err == nil {
		return nil, fmt.Errorf("create streams in %s: %w", cfg.Dir, errdefs.ErrAlreadyExists)
	}
	if err := Remove(cfg.Dir); err != nil {
		return nil, err
	}
	cu := cleanup.Make(func() { _ = Remove(cfg.Dir) })
	defer cu.Clean()

	if cfg.Stdin {
		if err := makeFIFO(filepath.Join(cfg.Dir, stdinName)); err != nil {
			return nil, err
		}
	}
	for i := range cfg.outputs() {
		if err := makeFIFO(filepath.Join(cfg.Dir, streamNames[i])); err != nil {
			return nil, err
		}
		if err := os.WriteFile(spoolPath(cfg.Dir, i), nil, 0o600); err != nil {
			return nil, fmt.Errorf("create spool: %w", err)
		}
	}
	// The journal is last: with it, the set is complete.
	j, err := createJournal(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := newStreams(cfg, j)
	if err != nil {
		return nil, err
	}
	cu.Add(func() { _ = s.Close() })
	if cfg.LogPath != "" {
		s.mu.Lock()
		err = s.openLogLocked()
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	s.start()
	cu.Release()
	return s, nil
}

// Open takes over the streams of a container that an earlier daemon created,
// completes the batch it was interrupted in, and pumps on. Without a complete
// set of files it returns errdefs.ErrNotFound.
//
// A journal that cannot be read, as after a power loss, is reported and begun
// anew; what the spools then still hold is written again.
func Open(cfg Config) (*Streams, error) {
	cfg.setDefaults()
	j, err := openJournal(cfg.Dir)
	if errors.Is(err, errdefs.ErrDataLoss) {
		cfg.OnError(err)
		j, err = createJournal(cfg.Dir)
	}
	if err != nil {
		return nil, err
	}
	s, err := newStreams(cfg, j)
	if err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		s.Close()
		return nil, err
	}
	s.start()
	return s, nil
}

// newStreams opens the files of both streams. It takes over j, also on error.
func newStreams(cfg Config, j *journal) (*Streams, error) {
	cfg.setDefaults()
	s := &Streams{cfg: cfg, stop: make(chan struct{}), journal: j}
	if cfg.LogPath == "" {
		s.journal = nil
		j.file.Close()
	}
	for i := range cfg.outputs() {
		st, err := openStream(cfg, i)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("open %s: %w", streamNames[i], err)
		}
		s.streams[i] = st
	}
	return s, nil
}

func (s *Streams) start() {
	for _, st := range s.streams {
		if st != nil {
			s.pumps.Add(1)
			go s.run(st)
		}
	}
}

// Finish is called when the container has ended: it writes all that its FIFOs
// and spools hold and an open line, and closes. It is idempotent, also over a
// restart. When ctx ends first, and at once on a read-only file system, it returns
// the reason why the output could not be written; nothing is lost and Finish can be
// called again.
func (s *Streams) Finish(ctx context.Context) error {
	s.halt()
	s.mu.Lock()
	finished := s.finished
	s.mu.Unlock()
	if finished {
		return nil
	}
	for _, st := range s.streams {
		if st == nil {
			continue
		}
		if err := s.finish(ctx, st); err != nil {
			s.mu.Lock()
			finished := s.finished // by another call meanwhile
			s.mu.Unlock()
			if finished {
				return nil
			}
			return fmt.Errorf("finish log %s: %w", s.cfg.LogPath, err)
		}
	}
	s.closeFiles(true)
	return nil
}

// Close stops to pump, between two batches, and leaves everything as it is for
// Open. It is idempotent.
func (s *Streams) Close() error {
	s.halt()
	s.closeFiles(false)
	return nil
}

func (s *Streams) closeFiles(finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = s.finished || finished
	if s.closed {
		return
	}
	s.closed = true
	s.endFollowersLocked(endOf(s.finished))
	for _, st := range s.streams {
		if st != nil {
			st.close()
		}
	}
	if s.journal != nil {
		s.journal.file.Close()
	}
	for _, file := range []*os.File{s.log, s.rotated} {
		if file != nil {
			file.Close()
		}
	}
}

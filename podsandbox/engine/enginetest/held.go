package enginetest

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
)

// duplicates are what a sandbox holds open: the files by their names, and the
// streams under "".
func duplicates(files map[string]*os.File, streams []*os.File) (map[string][]*os.File, error) {
	held := map[string][]*os.File{}
	cu := cleanup.Make(func() { closeAll(held) })
	defer cu.Clean()
	keep := func(name string, f *os.File) error {
		d, err := duplicate(f)
		if err == nil {
			held[name] = append(held[name], d)
		}
		return err
	}
	for name, f := range files {
		if err := keep(name, f); err != nil {
			return nil, err
		}
	}
	for _, f := range streams {
		if err := keep("", f); err != nil {
			return nil, err
		}
	}
	cu.Release()
	return held, nil
}

func closeAll(held map[string][]*os.File) {
	for _, files := range held {
		for _, f := range files {
			f.Close()
		}
	}
}

// duplicate does not use Fd, which would make f block.
func duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dupErr := -1, error(nil)
	if err := conn.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Held implements engine.Holder.
func (s *sandbox) Held(id, name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.held[id][name]
	if name == "" || len(files) == 0 {
		return nil, fmt.Errorf("it is not held: %w", errdefs.ErrNotFound)
	}
	return duplicate(files[0])
}

// Release implements engine.Holder.
func (s *sandbox) Release(id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.held[id][name] {
		f.Close()
	}
	delete(s.held[id], name)
	return nil
}

// letGoLocked closes all that is held for a container.
//
// +checklocks:s.mu
func (s *sandbox) letGoLocked(id string) {
	closeAll(s.held[id])
	delete(s.held, id)
}

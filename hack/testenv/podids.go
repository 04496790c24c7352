package testenv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// podIDs knows every pod that the environment's daemons ever made a record of,
// also those that no client heard of, because their request failed or a daemon
// died in it. It watches the directory of records; what it has not read yet waits in
// the kernel.
type podIDs struct {
	mu sync.Mutex
	// Of inotify(7); -1 after close.
	fd   int             // +checklocks:mu
	seen map[string]bool // +checklocks:mu
}

func newPodIDs() (*podIDs, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch records: %w", err)
	}
	return &podIDs{fd: fd, seen: map[string]bool{}}, nil
}

// watch looks at a directory of records from now on, too, which it makes if there is
// none. A daemon is started after it.
func (p *podIDs) watch(root string) error {
	dir := filepath.Join(root, "pods")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		// A test may have taken the disk away; its daemon makes no pods then.
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) {
			return nil
		}
		return fmt.Errorf("watch records: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := unix.InotifyAddWatch(p.fd, dir, unix.IN_CREATE|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch records %s: %w", dir, err)
	}
	return nil
}

// all returns the ids of all pods so far.
func (p *podIDs) all() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	buf := make([]byte, 64<<10)
	for p.fd >= 0 {
		n, err := unix.Read(p.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read which pods were made: %w", err)
		}
		p.noteLocked(buf[:n])
	}
	var ids []string
	for id := range p.seen {
		ids = append(ids, id)
	}
	return ids, nil
}

// noteLocked reads events: a header, whose last field is the length of the name that
// follows, filled up with zeros.
//
// +checklocks:p.mu
func (p *podIDs) noteLocked(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00"); name != "" {
			p.seen[name] = true
		}
		events = events[end:]
	}
}

func (p *podIDs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

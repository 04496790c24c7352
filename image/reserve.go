package image

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a file of some disk space that is given back while images are
// deleted. A deletion begins with notes in the databases, which would fail on a
// full disk: it could never be emptied again.
type reserve struct {
	path string

	mu sync.Mutex
	// Deletions under way.
	users int // +checklocks:mu
}

const reserveBytes = 512 << 10

func newReserve(root string) *reserve {
	r := &reserve{path: filepath.Join(root, "reserve")}
	r.fill()
	return r
}

// lend frees the space until the returned function is called.
func (r *reserve) lend() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users++; r.users == 1 {
		_ = os.Remove(r.path)
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.users--; r.users == 0 {
			r.fill()
		}
	}
}

// fill takes the space. When there is not that much, the next one tries again.
func (r *reserve) fill() {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, reserveBytes) != nil {
		_ = os.Remove(r.path)
	}
}

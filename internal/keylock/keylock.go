// Package keylock locks by name: each key has one holder at a time, and whoever waits
// for one does so no longer than its context lasts. A key costs memory only while
// somebody holds it or waits for it.
package keylock

import (
	"context"
	"sync"
)

// Locks are the locks of all keys. The zero value is ready, and all of it is safe for
// concurrent use.
type Locks struct {
	mu   sync.Mutex
	held map[string]*lock // +checklocks:mu
}

type lock struct {
	free  chan struct{} // holds a token while nobody has the key
	users int           // holder and waiters
}

// Lock waits for the key until ctx ends.
func (l *Locks) Lock(ctx context.Context, key string) error {
	l.mu.Lock()
	k := l.held[key]
	if k == nil {
		if l.held == nil {
			l.held = map[string]*lock{}
		}
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()

	select {
	case <-k.free:
		return nil
	case <-ctx.Done():
		l.release(key, k)
		return context.Cause(ctx)
	}
}

// Unlock gives the key to the next waiter. The caller holds the key.
func (l *Locks) Unlock(key string) {
	l.mu.Lock()
	k := l.held[key]
	l.mu.Unlock()
	k.free <- struct{}{}
	l.release(key, k)
}

func (l *Locks) release(key string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}

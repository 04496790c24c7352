package image

import (
	"context"
	"sync"
)

// keyedMutex gives one holder at a time to each key. Two pulls that share a
// blob or a chain fetch and unpack it once; the second then finds it done.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyedLock // +checklocks:mu
}

type keyedLock struct {
	free  chan struct{} // holds a token while nobody has the key
	users int           // holder and waiters
}

func newKeyedMutex() *keyedMutex {
	return &keyedMutex{held: map[string]*keyedLock{}}
}

// Lock waits for the key until ctx ends.
func (k *keyedMutex) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		l = &keyedLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()

	select {
	case <-l.free:
		return nil
	case <-ctx.Done():
		k.release(key, l)
		return context.Cause(ctx)
	}
}

// Unlock gives the key to the next waiter. The caller holds the key.
func (k *keyedMutex) Unlock(key string) {
	k.mu.Lock()
	l := k.held[key]
	k.mu.Unlock()
	l.free <- struct{}{}
	k.release(key, l)
}

func (k *keyedMutex) release(key string, l *keyedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.held, key)
	}
}

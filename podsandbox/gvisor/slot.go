package gvisor

import "context"

// slot is a mutex whose waiters go when their context ends: what is done under it asks
// the sandbox, which may not answer.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

// lock takes a free slot whatever the context says, and waits for one as long as that
// lasts.
func (s slot) lock(ctx context.Context) error {
	if s.tryLock() {
		return nil
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slot) tryLock() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slot) unlock() { <-s }

package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestLockHasOneHolderAKey(t *testing.T) {
	var l Locks
	var wg sync.WaitGroup
	inside := map[string]*int{"a": new(int), "b": new(int)}
	for range 50 {
		for key, n := range inside {
			wg.Go(func() {
				if err := l.Lock(t.Context(), key); err != nil {
					t.Error(err)
					return
				}
				defer l.Unlock(key)
				if *n++; *n != 1 {
					t.Errorf("key %s has %d holders", key, *n)
				}
				*n--
			})
		}
	}
	wg.Wait()
	if len(l.held) != 0 {
		t.Errorf("keys that nobody uses are kept: %v", l.held)
	}
}

func TestLockWaitsOnlyAsLongAsItsContext(t *testing.T) {
	var l Locks
	if err := l.Lock(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := l.Lock(t.Context(), "b"); err != nil {
		t.Errorf("another key is locked, too: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("over")
	cancel(cause)
	if err := l.Lock(ctx, "a"); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	l.Unlock("a")
	if err := l.Lock(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	l.Unlock("a")
	l.Unlock("b")
	if len(l.held) != 0 {
		t.Errorf("keys that nobody uses are kept: %v", l.held)
	}
}

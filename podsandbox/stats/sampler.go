package stats

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
)

const (
	// looksAtOnce is how many looks of one kind are under way at a time.
	looksAtOnce = 8

	// patience is how long a request waits for new samples where there are old ones.
	patience = 200 * time.Millisecond

	// firstPatience is how long it waits for those that are the first.
	firstPatience = 5 * time.Second
)

// sample is what one look at a subject gave.
type sample[T any] struct {
	time  time.Time // when the look began
	value T
	whole bool // nothing of it could not be read
}

// sampler keeps the last sample of each subject, which whoever asks first lets be taken.
// A look is shared by all who ask meanwhile. It belongs to none of them: it runs on a
// context of its own, and goes on when they leave. Its methods are safe for concurrent
// use.
//
// Locks: mu guards the subjects, and is held for nothing else but known.
type sampler[T any] struct {
	what    string // is looked at, for people
	work    *background.Group
	maxAge  time.Duration
	timeout time.Duration        // of one look
	known   func(id string) bool // tells whether Forget is still to be called for a subject
	slots   *semaphore.Weighted

	mu sync.Mutex
	// +checklocks:mu
	subjects map[string]*subject[T]
}

type subject[T any] struct {
	last *sample[T] // nil before the first look has ended
	look *look[T]   // nil when none is under way
}

type look[T any] struct {
	done chan struct{} // closed when it has ended
	// result is written before that; nil when there is none, after a panic.
	result *sample[T]
}

func newSampler[T any](what string, work *background.Group, maxAge, timeout time.Duration, known func(string) bool) *sampler[T] {
	return &sampler[T]{
		what: what, work: work, maxAge: maxAge, timeout: timeout, known: known,
		slots: semaphore.NewWeighted(looksAtOnce), subjects: map[string]*subject[T]{},
	}
}

// waiter is how long a request waits.
type waiter struct {
	first context.Context // for samples that are the first
	soon  context.Context // for newer ones
}

// newWaiter is for one request, however many subjects it asks for.
func newWaiter(ctx context.Context) (waiter, context.CancelFunc) {
	first, endFirst := context.WithTimeout(ctx, firstPatience)
	soon, endSoon := context.WithTimeout(ctx, patience)
	return waiter{first, soon}, func() { endSoon(); endFirst() }
}

// get returns a sample that is at most maxAge old and fits; one that is older where that
// takes too long; nil where there is none. take gets the sample before, or nil, and
// returns whether it has read everything.
func (s *sampler[T]) get(w waiter, id string, fits func(T) bool, take func(ctx context.Context, before *sample[T]) (T, bool)) *sample[T] {
	known, youngest := s.known, time.Now().Add(-s.maxAge)
	s.mu.Lock()
	of := s.subjects[id]
	if of == nil {
		of = &subject[T]{}
		if known(id) { // else nobody would forget it
			s.subjects[id] = of
		}
	}
	last, running := of.last, of.look
	if last != nil && last.whole && !last.time.Before(youngest) && fits(last.value) {
		s.mu.Unlock()
		return last
	}
	if running == nil {
		running = &look[T]{done: make(chan struct{})}
		of.look = running
		s.begin(id, of, last, take)
	}
	s.mu.Unlock()
	until := w.first.Done()
	if last != nil {
		until = w.soon.Done()
	}
	select {
	case <-running.done:
		if running.result != nil {
			return running.result
		}
	case <-until:
	case <-s.work.Life().Done():
	}
	return last
}

// begin takes a sample in the background.
func (s *sampler[T]) begin(id string, of *subject[T], before *sample[T], take func(context.Context, *sample[T]) (T, bool)) {
	running := of.look
	s.work.Go("look at the "+s.what+" of "+id, func(life context.Context) {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			of.look = nil
			if running.result != nil {
				of.last = running.result
			}
			close(running.done)
		}()
		if s.slots.Acquire(life, 1) != nil {
			return
		}
		defer s.slots.Release(1)
		ctx, cancel := context.WithTimeout(life, s.timeout)
		defer cancel()
		result := &sample[T]{time: time.Now()}
		result.value, result.whole = take(ctx, before)
		running.result = result
	})
}

// forget drops what is known of a subject that is gone.
func (s *sampler[T]) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subjects, id)
}

func anyFits[T any](T) bool { return true }

package stats

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
)

// subjectOf is a sampler of one subject, in a time of its own.
type subjectOf struct {
	*sampler[int]
	t      *testing.T
	mu     sync.Mutex
	looks  int           // +checklocks:mu
	hold   chan struct{} // looks wait for it, unless it is nil
	broken bool          // looks do not read everything
	gone   bool          // nobody will call forget any more
}

func withSubject(t *testing.T, test func(*subjectOf)) {
	synctest.Test(t, func(t *testing.T) {
		work := background.New()
		s := &subjectOf{t: t}
		s.sampler = newSampler[int]("number", work, time.Second, time.Minute, func(string) bool { return !s.gone })
		test(s)
		if err := work.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// take gives the number of the look.
func (s *subjectOf) take(ctx context.Context, _ *sample[int]) (int, bool) {
	s.mu.Lock()
	s.looks++
	n, hold := s.looks, s.hold
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return n, false
		}
	}
	return n, !s.broken
}

// ask returns the number of the look that answered, or 0.
func (s *subjectOf) ask(ctx context.Context) (look int, age time.Duration) {
	w, done := newWaiter(ctx)
	defer done()
	got := s.get(w, "id", anyFits, s.take)
	if got == nil {
		return 0, 0
	}
	return got.value, time.Since(got.time)
}

func (s *subjectOf) wants(what string, look int) {
	s.t.Helper()
	if got, _ := s.ask(s.t.Context()); got != look {
		s.t.Errorf("%s: look %d answered, want %d", what, got, look)
	}
}

func TestSamplerSharesALook(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.hold = make(chan struct{})
		var g sync.WaitGroup
		for range 20 {
			g.Go(func() { s.wants("at the same time", 1) })
		}
		synctest.Wait()
		close(s.hold)
		g.Wait()
		time.Sleep(time.Second)
		s.wants("within its time", 1)
		time.Sleep(time.Millisecond)
		s.wants("after that", 2)
	})
}

func TestSamplerOutlivesItsCaller(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(s.t.Context())
		first := make(chan struct{})
		go func() {
			defer close(first)
			if got, _ := s.ask(ctx); got != 0 {
				t.Errorf("who left was answered by look %d", got)
			}
		}()
		synctest.Wait()
		var g sync.WaitGroup
		g.Go(func() { s.wants("who stays", 1) })
		synctest.Wait()
		cancel()
		<-first
		close(s.hold)
		g.Wait()
	})
}

func TestSamplerKeepsNoFailure(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.broken = true
		s.wants("what could be read", 1)
		s.wants("again, at once", 2)
		s.broken = false
		s.wants("mended", 3)
		s.wants("within its time", 3)
	})
}

func TestSamplerAnswersWithTheLastSample(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.wants("the first", 1)
		time.Sleep(time.Hour)
		s.hold = make(chan struct{})
		for range 3 {
			began := time.Now()
			if got, age := s.ask(s.t.Context()); got != 1 || age < time.Hour {
				t.Errorf("look %d of %v ago answered", got, age)
			}
			if waited := time.Since(began); waited != patience {
				t.Errorf("it took %v", waited)
			}
		}
		s.mu.Lock()
		if s.looks != 2 {
			t.Errorf("%d looks were under way for three requests", s.looks-1)
		}
		s.mu.Unlock()
		close(s.hold)
		synctest.Wait()
		s.wants("the look that took long", 2)
	})
}

func TestSamplerWaitsForTheFirstSample(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.hold = make(chan struct{})
		began := time.Now()
		s.wants("nothing yet", 0)
		if waited := time.Since(began); waited != firstPatience {
			t.Errorf("it took %v", waited)
		}
		go func() {
			time.Sleep(time.Second)
			close(s.hold)
		}()
		s.wants("the first", 1)
	})
}

func TestSamplerForgets(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		kept := func(what string, want int) {
			t.Helper()
			s.sampler.mu.Lock()
			defer s.sampler.mu.Unlock()
			if len(s.subjects) != want {
				t.Errorf("%s: %d subjects are kept, want %d", what, len(s.subjects), want)
			}
		}
		s.wants("the first", 1)
		kept("known", 1)
		s.forget("id")
		kept("forgotten", 0)

		s.hold = make(chan struct{})
		var g sync.WaitGroup
		g.Go(func() { s.wants("asked before it was gone", 2) })
		synctest.Wait()
		s.gone = true
		s.forget("id")
		close(s.hold)
		g.Wait()
		kept("forgotten while it was looked at", 0)

		s.wants("asked by one who knew it", 3)
		kept("asked after that", 0)
	})
}

func TestSamplerSurvivesAPanic(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		s.wants("the first", 1)
		time.Sleep(time.Hour)
		w, done := newWaiter(s.t.Context())
		defer done()
		got := s.get(w, "id", anyFits, func(context.Context, *sample[int]) (int, bool) { panic("a defect") })
		if got == nil || got.value != 1 {
			t.Errorf("answered with %v", got)
		}
		s.wants("the next", 2)
	})
}

func TestSamplerEndsWithTheDaemon(t *testing.T) {
	withSubject(t, func(s *subjectOf) {
		if err := s.work.Close(s.t.Context()); err != nil {
			t.Error(err)
		}
		began := time.Now()
		s.wants("after the end", 0)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it took %v", waited)
		}
	})
}

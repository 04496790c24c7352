package image

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// errStalled ends a pull whose registry has stopped sending.
var errStalled = errors.New("the registry stopped sending")

// traffic watches the requests of one pull: whether anything arrives, and what
// the registry says when it refuses.
type traffic struct {
	waiting  atomic.Int64 // requests that wait for a byte
	received atomic.Int64 // bytes of all answers
	last     atomic.Int64 // when there was progress, as time since start
	lately   atomic.Int64 // bytes since then
	start    time.Time    // monotonic

	// tlsOnly: the secret of this pull is for a registry that speaks TLS.
	tlsOnly atomic.Bool

	mu      sync.Mutex
	refused string // +checklocks:mu
	// Secrets that were sent in headers.
	sent   map[string]bool                       // +checklocks:mu
	idlers []interface{ CloseIdleConnections() } // +checklocks:mu
}

func newTraffic() *traffic { return &traffic{start: time.Now(), sent: map[string]bool{}} }

// through wraps a transport.
func (t *traffic) through(rt http.RoundTripper) http.RoundTripper {
	if rt == nil {
		rt = http.DefaultTransport
	}
	if c, ok := rt.(interface{ CloseIdleConnections() }); ok && rt != http.DefaultTransport {
		t.mu.Lock()
		t.idlers = append(t.idlers, c)
		t.mu.Unlock()
	}
	return &watchedTransport{next: rt, traffic: t}
}

// watch cancels with errStalled when requests have been waiting for this long
// and hardly a byte came. It returns when ctx ends.
func (t *traffic) watch(ctx context.Context, idle time.Duration, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(max(idle/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if t.waiting.Load() > 0 && time.Since(t.start)-time.Duration(t.last.Load()) >= idle {
				cancel(errStalled)
				return
			}
		}
	}
}

// minProgress is how many bytes count as progress. One now and then does not: a
// registry that drips would keep a place among the downloads for ever.
const minProgress = 16 << 10

func (t *traffic) touch() {
	t.lately.Store(0)
	t.last.Store(int64(time.Since(t.start)))
}

// took counts bytes that arrived.
func (t *traffic) took(n int) {
	t.received.Add(int64(n))
	if t.lately.Add(int64(n)) >= minProgress {
		t.touch()
	}
}

func (t *traffic) begin() {
	t.touch()
	t.waiting.Add(1)
}

func (t *traffic) end() {
	t.waiting.Add(-1)
	t.touch()
}

func (t *traffic) refusal() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused
}

// noteSecret remembers the secret in a header that is sent: a registry may have
// handed out a token, and repeat it in its answers.
func (t *traffic) noteSecret(header string) {
	_, secret, _ := strings.Cut(header, " ")
	if secret == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[secret] = true
}

func (t *traffic) secrets() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.sent))
}

// close lets go of the connections that are kept for further requests.
func (t *traffic) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idlers {
		c.CloseIdleConnections()
	}
}

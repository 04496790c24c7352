package image

import (
	"context"
	"errors"
	"io"
	"net/http"
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
	waiting atomic.Int64 // requests that wait for a byte
	last    atomic.Int64 // when something happened, as time since start
	start   time.Time    // monotonic

	mu      sync.Mutex
	refused string
	idlers  []interface{ CloseIdleConnections() }
}

func newTraffic() *traffic { return &traffic{start: time.Now()} }

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
// without a byte. It returns when ctx ends.
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

func (t *traffic) touch() { t.last.Store(int64(time.Since(t.start))) }

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

// close lets go of the connections that are kept for further requests.
func (t *traffic) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idlers {
		c.CloseIdleConnections()
	}
}

type watchedTransport struct {
	next    http.RoundTripper
	traffic *traffic
}

// RoundTrip implements http.RoundTripper.
func (w *watchedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = withoutInheritedSecret(req)
	w.traffic.begin()
	resp, err := w.next.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && req.Header.Get("Range") != "" {
		// Some registries know no ranges and say so instead of sending all. The
		// fetcher can do with all, and a resumed pull would fail for ever.
		resp.Body.Close()
		req = req.Clone(req.Context())
		req.Header.Del("Range")
		resp, err = w.next.RoundTrip(req)
	}
	if err != nil {
		w.traffic.end()
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, traffic: w.traffic}
	w.askWhy(req, resp)
	return resp, nil
}

// withoutInheritedSecret drops the secret that a redirected request has taken
// over from the first one: net/http lets it through to other ports and to
// subdomains. One that the authorizer set for the new host is another.
func withoutInheritedSecret(req *http.Request) *http.Request {
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	secret := req.Header.Get("Authorization")
	if secret == "" || secret != first.Header.Get("Authorization") ||
		first.URL.Host == req.URL.Host && first.URL.Scheme == req.URL.Scheme {
		return req
	}
	req = req.Clone(req.Context())
	req.Header.Del("Authorization")
	return req
}

// askWhy repeats a refused look at a manifest as a GET: images are resolved
// with HEAD, whose answer has no room for the reason. A first 401 is no refusal,
// but the way to ask for credentials.
func (w *watchedTransport) askWhy(req *http.Request, resp *http.Response) {
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusForbidden:
	case http.StatusUnauthorized:
		if req.Header.Get("Authorization") == "" {
			return
		}
	default:
		return
	}
	if req.Method != http.MethodHead || !strings.Contains(req.URL.Path, "/manifests/") {
		return
	}
	again := req.Clone(req.Context())
	again.Method = http.MethodGet
	w.traffic.begin()
	defer w.traffic.end()
	full, err := w.next.RoundTrip(again)
	if err != nil {
		return
	}
	defer full.Body.Close()
	if full.StatusCode != resp.StatusCode {
		return
	}
	if words := refusal(full.Body); words != "" {
		w.traffic.mu.Lock()
		w.traffic.refused = words
		w.traffic.mu.Unlock()
	}
}

type watchedBody struct {
	io.ReadCloser
	traffic *traffic
	once    sync.Once
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.traffic.touch()
	}
	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.once.Do(b.traffic.end)
	return b.ReadCloser.Close()
}

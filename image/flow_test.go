package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// throttle holds back requests for blobs until it is opened.
type throttle struct {
	open chan struct{}
	seen chan struct{} // one token for each request held back
	gone chan struct{} // one token for each that was given up
}

func newThrottle() *throttle {
	return &throttle{open: make(chan struct{}), seen: make(chan struct{}, 100), gone: make(chan struct{}, 100)}
}

func (th *throttle) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			th.seen <- struct{}{}
			select {
			case <-th.open:
			case <-r.Context().Done():
				th.gone <- struct{}{}
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// waitCallers waits until n callers share the pull of a name.
func waitCallers(t *testing.T, s *Store, name string, n int) {
	t.Helper()
	for t.Context().Err() == nil {
		s.pulls.mu.Lock()
		p := s.pulls.running[name]
		ok := p != nil && p.callers == n
		s.pulls.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPullIsShared(t *testing.T) {
	th := newThrottle()
	var asked requests
	host := newRegistry(t, func(h http.Handler) http.Handler { return asked.wrap(th.wrap(h)) })
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "x")
	asked.reset()

	leaving, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = leaving
			}
			_, err := s.Pull(ctx, host+"/app:v1", nil)
			if i == 0 && !errors.Is(err, context.Canceled) || i > 0 && err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	waitCallers(t, s, host+"/app:v1", 5)
	<-th.seen
	leave() // one caller going away does not disturb the others
	waitCallers(t, s, host+"/app:v1", 4)
	close(th.open)
	wg.Wait()
	if n := asked.count("HEAD", "/manifests/"); n != 1 {
		t.Errorf("resolved %d times", n)
	}
	if n := asked.count("GET", "/blobs/"); n != 2 {
		t.Errorf("%d downloads of a layer and a config", n)
	}
}

// Two images with a layer in common fetch it once, also at the same time.
func TestPullSharesLayers(t *testing.T) {
	th := newThrottle()
	var asked requests
	host := newRegistry(t, func(h http.Handler) http.Handler { return asked.wrap(th.wrap(h)) })
	s := newStore(t, Options{})
	base := gzipLayer(file("base", strings.Repeat("b", 5000)))
	push(t, host+"/one", buildImage(t, v1.Config{}, base, gzipLayer(file("one", "1"))))
	push(t, host+"/two", buildImage(t, v1.Config{}, base, gzipLayer(file("two", "2"))))
	asked.reset()
	var wg sync.WaitGroup
	for _, name := range []string{"/one", "/two"} {
		wg.Go(func() { mustPull(t, s, host+name) })
	}
	<-th.seen
	close(th.open)
	wg.Wait()
	dgst, _ := base.Digest()
	if n := asked.count("GET", dgst.String()); n != 1 {
		t.Errorf("the common layer was fetched %d times", n)
	}
}

// A caller with other credentials does not get into the house on the back of one
// who may.
func TestPullWithOtherCredentialsIsNotShared(t *testing.T) {
	th := newThrottle()
	host := newRegistry(t, func(h http.Handler) http.Handler { return basicAuth("ann", "secret")(th.wrap(h)) })
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "x", ann)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Pull(t.Context(), host+"/app:v1", &Credentials{Username: "ann", Password: "secret"}); err != nil {
			t.Error(err)
		}
	})
	<-th.seen
	wg.Go(func() {
		if _, err := s.Pull(t.Context(), host+"/app:v1", nil); !errdefs.IsUnauthorized(err) {
			t.Errorf("without credentials: %v", err)
		}
	})
	close(th.open)
	wg.Wait()
}

func TestPullCancelledResumes(t *testing.T) {
	t.Run("ranges", func(t *testing.T) { pullCancelledResumes(t, true) })
	t.Run("no ranges", func(t *testing.T) { pullCancelledResumes(t, false) })
}

func pullCancelledResumes(t *testing.T, ranges bool) {
	const size, sent, onDisk = 4 << 20, 3 << 20, 1 << 20 // the copier writes in lumps
	var half sync.Once
	var asked requests
	stopped := make(chan struct{})
	var layerPath string
	random := make([]byte, size)
	_, _ = rand.Read(random)
	l := plainLayer(file("random", string(random)))
	host := newRegistry(t, func(h http.Handler) http.Handler {
		return asked.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cut := false
			if r.Method == http.MethodGet && layerPath != "" && strings.HasSuffix(r.URL.Path, layerPath) {
				half.Do(func() { cut = true })
			}
			if !cut && ranges && r.Header.Get("Range") != "" {
				// The test registry does not know open ranges.
				r.Header.Del("Range")
				var from int64
				_, _ = fmt.Sscanf(asked.lastRange(), "bytes=%d-", &from)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(l.blob)-1, len(l.blob)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(l.blob[from:])
				return
			}
			if !cut {
				h.ServeHTTP(w, r)
				return
			}
			h.ServeHTTP(&cutWriter{ResponseWriter: w, left: sent, req: r}, r)
			close(stopped)
		}))
	})
	s := newStore(t, Options{})
	push(t, host+"/app:v1", buildImage(t, v1.Config{}, l))
	dgst, _ := l.Digest()
	layerPath = dgst.String()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Pull(ctx, host+"/app:v1", nil)
		done <- err
	}()
	// Cancel once the first part is on disk.
	for {
		found, _ := filepath.Glob(filepath.Join(s.opts.Root, "content/ingest/*/data"))
		if len(found) > 0 {
			if fi, err := os.Stat(found[0]); err == nil && fi.Size() >= onDisk {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled pull: %v", err)
	}
	<-stopped // the work has ended, too

	// A restart and a collection keep what is worth keeping.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked.reset()
	img := mustPull(t, s, host+"/app:v1")
	resumed := false
	asked.mu.Lock()
	for _, r := range asked.list {
		resumed = resumed || strings.HasSuffix(r.URL.Path, layerPath) && strings.HasPrefix(r.Header.Get("Range"), "bytes=")
	}
	asked.mu.Unlock()
	if !resumed {
		t.Error("the download began anew")
	}
	if got := readFile(t, mounted(t, s, "c", img)+"/random"); got != string(random) {
		t.Error("wrong content")
	}
}

// lastRange is the latest range that was asked for.
func (r *requests) lastRange() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := ""
	for _, req := range r.list {
		if v := req.Header.Get("Range"); v != "" {
			last = v
		}
	}
	return last
}

// cutWriter sends so many bytes of an answer and then waits for the client to
// give up.
type cutWriter struct {
	http.ResponseWriter
	left int
	req  *http.Request
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	w.left -= n
	if w.left > 0 {
		return n, nil
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	<-w.req.Context().Done()
	return n, w.req.Context().Err()
}

// What a failed pull left goes when no retry comes within the hour.
func TestPullLeasesExpire(t *testing.T) {
	th := newThrottle()
	host := newRegistry(t, th.wrap)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "x")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-th.seen; cancel() }()
	if _, err := s.Pull(ctx, host+"/app:v1", nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-th.gone
	for waiting := true; waiting; {
		s.pulls.mu.Lock()
		waiting = len(s.pulls.running) > 0
		s.pulls.mu.Unlock()
	}
	if len(leftovers(t, s)) == 0 {
		t.Fatal("nothing was kept for a retry")
	}
	s.pulls.leases.mu.Lock()
	for id, l := range s.pulls.leases.retained {
		l.since = l.since.Add(-retryWindow - time.Second)
		s.pulls.leases.retained[id] = l
	}
	s.pulls.leases.mu.Unlock()
	wantNothingLeft(t, s)
}

func TestPullStalls(t *testing.T) {
	th := newThrottle()
	host := newRegistry(t, th.wrap)
	s := newStore(t, Options{PullIdleTimeout: 50 * time.Millisecond})
	pushSmall(t, host+"/app:v1", "x")
	_, err := s.Pull(t.Context(), host+"/app:v1", nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stopped sending") {
		t.Errorf("stalled pull: %v", err)
	}
	<-th.gone
}

// The watch looks at bytes, not at how long a request takes, and not at times
// without a request.
func TestWatchIsAboutBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		tr := newTraffic()
		go tr.watch(ctx, time.Second, cancel)
		time.Sleep(5 * time.Second) // nothing asked
		tr.begin()
		for range 20 {
			time.Sleep(900 * time.Millisecond)
			tr.took(minProgress)
		}
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("a slow download was cut off")
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if context.Cause(ctx) != errStalled {
			t.Error("a stalled download goes on")
		}
	})
}

// A registry that sends a byte now and then does not hold a pull for ever.
func TestWatchEndsDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		tr := newTraffic()
		go tr.watch(ctx, time.Second, cancel)
		tr.begin()
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			tr.took(1)
		}
		synctest.Wait()
		if context.Cause(ctx) != errStalled {
			t.Error("a dripping download goes on")
		}
		cancel(nil)
	})
}

func TestCloseEndsPulls(t *testing.T) {
	th := newThrottle()
	host := newRegistry(t, th.wrap)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "x")
	done := make(chan error)
	go func() {
		_, err := s.Pull(t.Context(), host+"/app:v1", nil)
		done <- err
	}()
	<-th.seen
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("pull: %v", err)
	}
	if _, err := s.Pull(t.Context(), host+"/app:v1", nil); !errdefs.IsUnavailable(err) {
		t.Errorf("pull after close: %v", err)
	}
}

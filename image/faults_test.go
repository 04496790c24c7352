package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1"
)

// fault answers a request instead of the registry, or lets it pass (false).
type fault func(w http.ResponseWriter, r *http.Request) bool

// faulty is a registry with a fault that can be taken away.
type faulty struct{ fault atomic.Pointer[fault] }

func (f *faulty) set(to fault) { f.fault.Store(&to) }

func (f *faulty) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if now := f.fault.Load(); now != nil && (*now)(w, r) {
			return
		}
		h.ServeHTTP(w, r)
	})
}

// on is a fault of some requests only.
func on(method, part string, answer func(http.ResponseWriter, *http.Request)) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		answer(w, r)
		return true
	}
}

// abort resets the connection after some bytes of the answer.
func abort(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, n))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// endless sends bytes until the client goes away.
func endless(w http.ResponseWriter, r *http.Request) {
	for lump := make([]byte, 64<<10); r.Context().Err() == nil; {
		if _, err := w.Write(lump); err != nil {
			return
		}
	}
}

func bytesOf(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, n)) }
}

func header(status int, pairs ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(pairs); i += 2 {
			w.Header().Set(pairs[i], pairs[i+1])
		}
		w.WriteHeader(status)
	}
}

// manifest answers with a text as the manifest, also with its headers.
func manifest(text string) fault {
	dgst, _, _ := v1.SHA256(strings.NewReader(text))
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.Header().Set("Docker-Content-Digest", dgst.String())
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(text))
		}
		return true
	}
}

const aDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// Whatever a registry does, a pull ends with a class and a text of bounded length,
// leaves nothing but what serves a retry, and the next pull works when the
// registry does.
func TestPullWithRegistryFaults(t *testing.T) {
	needRoot(t)
	layerOf := func(size string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
			"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + aDigest + `","size":10},
			"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + aDigest + `","size":` + size + `}]}`
	}
	stall := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	stallLater := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		bytesOf(10)(w, r)
		_ = http.NewResponseController(w).Flush()
		stall(w, r)
	}
	isTimeout := func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
	for name, c := range map[string]struct {
		fault fault
		is    func(error) bool
	}{
		"blob: reset":        {on("GET", "/blobs/", abort(10)), errdefs.IsUnavailable},
		"blob: too short":    {on("GET", "/blobs/", bytesOf(10)), errdefs.IsUnavailable},
		"blob: wrong bytes":  {rewrite(func(b []byte) []byte { return make([]byte, len(b)) }), errdefs.IsDataLoss},
		"blob: endless":      {on("GET", "/blobs/", endless), errdefs.IsDataLoss},
		"blob: stalls":       {on("GET", "/blobs/", stall), isTimeout},
		"blob: stalls later": {on("GET", "/blobs/", stallLater), isTimeout},
		"blob: absent":       {on("GET", "/blobs/", header(404)), errdefs.IsNotFound},
		"blob: broken":       {on("GET", "/blobs/", header(500)), errdefs.IsUnavailable},
		"blob: forbidden":    {on("GET", "/blobs/", header(403)), errdefs.IsPermissionDenied},
		"blob: circle": {on("GET", "/blobs/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}), errdefs.IsUnavailable},
		"blob: to nowhere":       {on("GET", "/blobs/", header(307, "Location", "http://127.0.0.1:1/x?signature=hush")), errdefs.IsUnavailable},
		"blob: compressed":       {rewrite(wideZstd, "Content-Encoding", "zstd"), errdefs.IsUnavailable},
		"manifest: stalls":       {on("HEAD", "/manifests/", stall), isTimeout},
		"manifest: reset":        {on("HEAD", "/manifests/", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), errdefs.IsUnavailable},
		"manifest: wrong bytes":  {on("GET", "/manifests/", bytesOf(500)), errdefs.IsDataLoss},
		"manifest: endless":      {on("GET", "/manifests/", endless), errdefs.IsDataLoss},
		"manifest: no digest":    {noDigest(endless), errdefs.IsInvalidArgument},
		"manifest: gigantic":     {on("HEAD", "/manifests/", header(200, "Content-Length", "50000000", "Docker-Content-Digest", aDigest, "Content-Type", "application/vnd.oci.image.manifest.v1+json")), isEither(errdefs.IsInvalidArgument, errdefs.IsNotFound)},
		"manifest: odd type":     {on("HEAD", "/manifests/", header(200, "Content-Length", "5", "Docker-Content-Digest", aDigest, "Content-Type", strings.Repeat("odd", 3000))), errdefs.IsInvalidArgument},
		"manifest: odd digest":   {on("HEAD", "/manifests/", header(200, "Content-Length", "5", "Docker-Content-Digest", strings.Repeat("odd", 3000))), isEither(errdefs.IsInvalidArgument, errdefs.IsUnavailable)},
		"manifest: large header": {on("HEAD", "/manifests/", header(200, "X-Large", strings.Repeat("x", 12<<20))), errdefs.IsUnavailable},
		"manifest: no JSON":      {manifest("<html>" + strings.Repeat("x", 5000)), errdefs.IsInvalidArgument},
		"manifest: null":         {manifest("null"), errdefs.IsInvalidArgument},
		"manifest: empty":        {manifest("{}"), errdefs.IsInvalidArgument},
		"manifest: another JSON": {manifest(`{"config":5,"layers":"x"}`), errdefs.IsInvalidArgument},
		"manifest: bad size":     {manifest(layerOf("-5")), errdefs.IsInvalidArgument},
		"manifest: no size":      {manifest(layerOf("0")), isEither(errdefs.IsInvalidArgument, errdefs.IsNotFound)},
		"manifest: huge layer":   {manifest(layerOf("9223372036854775807")), errdefs.IsInvalidArgument},
		"manifest: odd size":     {manifest(layerOf("99999999999999999999999")), errdefs.IsInvalidArgument},
		"token: endless":         {token(endless), isEither(errdefs.IsInvalidArgument, errdefs.IsUnavailable)},
		"token: stalls":          {token(stall), isTimeout},
		"token: no JSON":         {token(bytesOf(100)), errdefs.IsUnavailable},
		"token: none":            {token(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }), errdefs.IsUnauthorized},
		"token: refused":         {token(header(403)), errdefs.IsPermissionDenied},
		"token: never good":      {token(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"bad"}`)) }), errdefs.IsUnauthorized},
		"auth: unknown scheme":   {on("HEAD", "/manifests/", header(401, "WWW-Authenticate", "Odd x=y")), errdefs.IsUnauthorized},
		"auth: none":             {on("HEAD", "/manifests/", header(401)), errdefs.IsUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f faulty
			host := newRegistry(t, f.wrap)
			opts := Options{}
			if strings.Contains(name, "stalls") {
				opts.PullIdleTimeout = 300 * time.Millisecond
			}
			s := newStore(t, opts)
			layer := gzipLayer(file("text", strings.Repeat("good ", 1000)))
			push(t, host+"/app", buildImage(t, v1.Config{}, layer))
			f.set(c.fault)
			_, err := s.Pull(t.Context(), host+"/app", nil)
			if !c.is(err) {
				t.Errorf("pull: %v", err)
			}
			if text := fmt.Sprint(err); len(text) > maxErrorText+300 || strings.Contains(text, "hush") || strings.ContainsAny(text, "\n\x00") {
				t.Errorf("error of %d bytes: %.2000q", len(text), text)
			}
			if !retryable(classOf(err)) {
				wantNothingLeft(t, s)
			}
			wantSmall(t, s)
			f.set(func(http.ResponseWriter, *http.Request) bool { return false })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = newStore(t, Options{Root: s.opts.Root})
			img := mustPull(t, s, host+"/app")
			if got := readFile(t, mounted(t, s, "c", img)+"/text"); got != strings.Repeat("good ", 1000) {
				t.Errorf("after the fault the image holds %.20q", got)
			}
			if err := s.UnmountRootfs(context.WithoutCancel(t.Context()), "c", filepath.Join(t.TempDir(), "none")); err != nil {
				t.Error(err)
			}
		})
	}
}

func isEither(a, b func(error) bool) func(error) bool {
	return func(err error) bool { return a(err) || b(err) }
}

// classOf is the class that an error of Pull carries.
func classOf(err error) error {
	for _, class := range []error{context.Canceled, context.DeadlineExceeded, errdefs.ErrUnavailable} {
		if errors.Is(err, class) {
			return class
		}
	}
	return errdefs.ErrInternal
}

// wantSmall checks that a failed pull took no more of the disk than what a retry
// can use.
func wantSmall(t *testing.T, s *Store) {
	t.Helper()
	u, err := s.Usage(t.Context())
	if err != nil || u.Bytes > 1<<20 {
		t.Errorf("%d bytes on disk, %v", u.Bytes, err)
	}
}

// rewrite changes what blobs hold on their way.
func rewrite(change func([]byte) []byte, headers ...string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("X-Inner") != "" {
			return false
		}
		again, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+r.Host+r.URL.Path, nil)
		if err != nil {
			return false
		}
		again.Header.Set("X-Inner", "1")
		resp, err := http.DefaultClient.Do(again)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		blob, err := io.ReadAll(resp.Body)
		if err != nil {
			return false
		}
		header(200, headers...)(w, r)
		_, _ = w.Write(change(blob))
		return true
	}
}

// noDigest answers HEAD without a digest, and GET with something.
func noDigest(get func(http.ResponseWriter, *http.Request)) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		if r.Method == http.MethodGet {
			get(w, r)
		}
		return true
	}
}

// token is a registry that wants a token of a server with a fault.
func token(answer func(http.ResponseWriter, *http.Request)) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			answer(w, r)
			return true
		}
		header(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))(w, r)
		return true
	}
}

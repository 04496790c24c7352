package image

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// requests records what a server was asked.
type requests struct {
	mu   sync.Mutex
	list []*http.Request // +checklocks:mu
}

func (r *requests) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.list = append(r.list, req.Clone(req.Context()))
		r.mu.Unlock()
		h.ServeHTTP(w, req)
	})
}

func (r *requests) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = nil
}

// count counts requests of a method whose path contains part.
func (r *requests) count(method, part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, req := range r.list {
		if req.Method == method && strings.Contains(req.URL.Path, part) {
			n++
		}
	}
	return n
}

// authorizations lists the distinct Authorization headers that were sent.
func (r *requests) authorizations() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]bool{}
	for _, req := range r.list {
		if a := req.Header.Get("Authorization"); a != "" {
			seen[a] = true
		}
	}
	return seen
}

// basicAuth lets only one user in.
func basicAuth(user, password string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

var ann = remote.WithAuth(&authn.Basic{Username: "ann", Password: "secret"})

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestPullBasicAuth(t *testing.T) {
	host := newRegistry(t, basicAuth("ann", "secret"))
	s := newStore(t, Options{})
	pushSmall(t, host+"/private", "x", ann)
	for _, c := range []*Credentials{
		{Username: "ann", Password: "secret"},
		{Auth: encoded("ann:secret")},
		{Auth: encoded("ann:secret\x00\x00")},
		{Username: "ann", Password: "secret", ServerAddress: "http://" + host + "/v1/"},
	} {
		if _, err := s.Pull(t.Context(), host+"/private", c); err != nil {
			t.Errorf("pull with %+v: %v", *c, err)
		}
	}
	for _, c := range []*Credentials{
		nil, {}, {Username: "ann", Password: "wrong"},
		{Username: "ann", Password: "secret", ServerAddress: "elsewhere.test"},
	} {
		_, err := s.Pull(t.Context(), host+"/private", c)
		if !errdefs.IsUnauthorized(err) {
			t.Errorf("pull with %+v: %v", c, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	for _, c := range []*Credentials{{Auth: "%%%"}, {Auth: encoded("nocolon")}, {Username: "a", ServerAddress: "http://%zz"}} {
		if _, err := s.Pull(t.Context(), host+"/private", c); !errdefs.IsInvalidArgument(err) {
			t.Errorf("pull with %+v: %v", *c, err)
		}
	}
}

// tokenAuth hands out a token for a user, an identity token or nothing, and lets
// in who has one.
func tokenAuth(t *testing.T) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				_ = r.ParseForm()
				user, password, _ := r.BasicAuth()
				good := user == "ann" && password == "secret" ||
					r.Form.Get("username") == "ann" && r.Form.Get("password") == "secret" ||
					r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") == "identity"
				if !good {
					http.Error(w, "no", http.StatusUnauthorized)
					return
				}
				fmt.Fprint(w, `{"token":"letmein","access_token":"letmein","expires_in":300}`)
				return
			}
			if r.Header.Get("Authorization") != "Bearer letmein" {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestPullTokenAuth(t *testing.T) {
	host := newRegistry(t, tokenAuth(t))
	s := newStore(t, Options{})
	pushSmall(t, host+"/private", "x", ann)
	for _, c := range []*Credentials{
		{Username: "ann", Password: "secret"},
		{IdentityToken: "identity"},
		{RegistryToken: "letmein"},
	} {
		if _, err := s.Pull(t.Context(), host+"/private", c); err != nil {
			t.Errorf("pull with %+v: %v", *c, err)
		}
	}
	for _, c := range []*Credentials{
		nil, {Username: "ann", Password: "wrong"}, {IdentityToken: "wrong"}, {RegistryToken: "wrong"},
		{RegistryToken: "letmein", ServerAddress: "elsewhere.test"},
	} {
		if _, err := s.Pull(t.Context(), host+"/private", c); !errdefs.IsUnauthorized(err) {
			t.Errorf("pull with %+v: %v", c, err)
		}
	}
}

func TestPullRefused(t *testing.T) {
	var status int
	host := newRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status == 0 {
				h.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"code":"TEST","message":"the words\nof status %d"}]}`, status)
		})
	})
	s := newStore(t, Options{})
	_, err := s.Pull(t.Context(), host+"/nothing:here", nil)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("unknown image: %v", err)
	}
	for code, is := range map[int]func(error) bool{
		403: errdefs.IsPermissionDenied, 404: errdefs.IsNotFound,
		429: errdefs.IsUnavailable, 500: errdefs.IsUnavailable, 503: errdefs.IsUnavailable,
	} {
		status = code
		_, err := s.Pull(t.Context(), host+"/app", nil)
		if !is(err) {
			t.Errorf("status %d: %v", code, err)
		}
		if (code == 403 || code == 404) && !strings.Contains(fmt.Sprint(err), fmt.Sprintf("TEST the words of status %d", code)) {
			t.Errorf("status %d: the registry's words are missing: %v", code, err)
		}
	}
	if _, err := s.Pull(t.Context(), "127.0.0.1:1/app", nil); !errdefs.IsUnavailable(err) {
		t.Errorf("nobody listens: %v", err)
	}
	for _, ref := range []string{"", "UPPER", "a:b:c", "host/", "x@sha256:12", "http://host/x"} {
		if _, err := s.Pull(t.Context(), ref, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("name %q: %v", ref, err)
		}
	}
	wantNothingLeft(t, s)
}

// hostsToml configures a registry name.
func hostsToml(t *testing.T, dir, registry, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, registry), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, registry, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPullFromMirror(t *testing.T) {
	var asked requests
	mirror := newRegistry(t, asked.wrap)
	pushSmall(t, mirror+"/library/app:v1", "x")
	conf := t.TempDir()
	hostsToml(t, conf, "docker.io", fmt.Sprintf("[host.%q]\n", "http://"+mirror))
	s := newStore(t, Options{RegistryConfigDir: conf})
	asked.reset()
	img, err := s.Pull(t.Context(), "app:v1", &Credentials{Username: "ann", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if img.RepoTags[0] != "docker.io/library/app:v1" || !strings.HasPrefix(img.RepoDigests[0], "docker.io/library/app@sha256:") {
		t.Errorf("names %v %v", img.RepoTags, img.RepoDigests)
	}
	for _, name := range []string{"app:v1", "library/app:v1", "docker.io/app:v1", "index.docker.io/library/app:v1"} {
		if got, err := s.Get(t.Context(), name); err != nil || got.ID != img.ID {
			t.Errorf("get %s: %v", name, err)
		}
	}
	if _, err := s.Get(t.Context(), "app"); !errdefs.IsNotFound(err) {
		t.Errorf("get of a tag that is not there: %v", err)
	}
}

// A mirror that asks for credentials does not get those of the registry it
// mirrors; it gets its own, when they are given for it by address.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	var asked requests
	mirror := newRegistry(t, func(h http.Handler) http.Handler {
		return asked.wrap(basicAuth("ann", "secret")(h))
	})
	pushSmall(t, mirror+"/app", "x", ann)
	conf := t.TempDir()
	hostsToml(t, conf, "registry.test", fmt.Sprintf("server = %q\n[host.%q]\n", "http://127.0.0.1:1", "http://"+mirror))
	s := newStore(t, Options{RegistryConfigDir: conf})

	for _, c := range []Credentials{{Username: "ann", Password: "secret"}, {RegistryToken: "secret"}} {
		asked.reset()
		if _, err := s.Pull(t.Context(), "registry.test/app", &c); err == nil {
			t.Error("pulled from the mirror with the registry's credentials")
		}
		if asked.count("HEAD", "") == 0 {
			t.Error("the mirror was not asked")
		}
		if sent := asked.authorizations(); len(sent) > 0 {
			t.Errorf("the mirror saw %v", sent)
		}
	}
	c := &Credentials{Username: "ann", Password: "secret", ServerAddress: mirror}
	if _, err := s.Pull(t.Context(), "registry.test/app", c); err != nil {
		t.Errorf("pull with the mirror's own credentials: %v", err)
	}
}

// A registry may redirect downloads to a store of blobs, which learns nothing.
func TestCredentialsDoNotFollowRedirects(t *testing.T) {
	var asked requests
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	blobs := httptest.NewServer(asked.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" { // one more turn, at the same host
			http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
			return
		}
		backend.ServeHTTP(w, r)
	})))
	defer blobs.Close()
	host := newRegistry(t, func(http.Handler) http.Handler {
		return basicAuth("ann", "secret")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
				http.Redirect(w, r, blobs.URL+r.URL.Path, http.StatusTemporaryRedirect)
				return
			}
			backend.ServeHTTP(w, r)
		}))
	})
	pushSmall(t, host+"/app", "x", ann)
	s := newStore(t, Options{})
	if _, err := s.Pull(t.Context(), host+"/app", &Credentials{Username: "ann", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	if asked.count("GET", "/blobs/") == 0 {
		t.Error("nothing was redirected")
	}
	if sent := asked.authorizations(); len(sent) > 0 {
		t.Errorf("the blob store saw %v", sent)
	}
}

func TestPullOverTLS(t *testing.T) {
	var asked requests
	server := httptest.NewTLSServer(asked.wrap(registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	pushSmall(t, host+"/app", "x", remote.WithTransport(server.Client().Transport))

	// "example.com" is in the test certificate, and resolves nowhere: the
	// registry is reached through its configuration only.
	conf := t.TempDir()
	ca := filepath.Join(conf, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{RegistryConfigDir: conf})
	hostsToml(t, conf, "example.com", fmt.Sprintf("server = %q\n", server.URL))
	if _, err := s.Pull(t.Context(), "example.com/app", nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("unknown authority: %v", err)
	}
	hostsToml(t, conf, "example.com", fmt.Sprintf("server = %q\nca = %q\n", server.URL, ca))
	if _, err := s.Pull(t.Context(), "example.com/app", nil); err != nil {
		t.Errorf("with the authority's certificate: %v", err)
	}
	hostsToml(t, conf, "example.com", "server = [broken\n")
	if _, err := s.Pull(t.Context(), "example.com/app", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "hosts.toml") {
		t.Errorf("broken configuration: %v", err)
	}
}

package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const password = "correct-horse-battery"

var withPassword = &Credentials{Username: "ann", Password: password}

// bodies records what was sent in the bodies of requests, and in headers.
func bodies(seen *strings.Builder, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintln(seen, r.Method, r.URL, r.Header, string(body))
		h(w, r)
	})
}

// challenge makes a registry that wants a token of the given server.
func challenge(realm *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		header(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, *realm))(w, r)
	}
}

// A token server gets the password, for the registry has named it; whom it
// redirects to does not.
func TestPullRefusesATokenServerThatRedirects(t *testing.T) {
	var thief, honest strings.Builder
	end := httptest.NewServer(bodies(&thief, func(http.ResponseWriter, *http.Request) {}))
	defer end.Close()
	tokens := httptest.NewServer(bodies(&honest, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, end.URL+"/token", http.StatusTemporaryRedirect)
	}))
	defer tokens.Close()
	host := newRegistry(t, func(http.Handler) http.Handler { return challenge(&tokens.URL) })
	s := newStore(t, Options{})
	_, err := s.Pull(t.Context(), host+"/app", withPassword)
	if !errdefs.IsUnauthorized(err) {
		t.Errorf("pull: %v", err)
	}
	if !strings.Contains(honest.String(), password) {
		t.Error("the token server did not get the password")
	}
	if strings.Contains(thief.String(), password) || strings.Contains(fmt.Sprint(err), password) {
		t.Errorf("the password went to where the token server redirects: %s, %v", thief.String(), err)
	}
}

// A registry on TLS may not have the password sent in plain text.
func TestPullRefusesATokenServerWithoutTLS(t *testing.T) {
	var plain strings.Builder
	tokens := httptest.NewServer(bodies(&plain, func(http.ResponseWriter, *http.Request) {}))
	defer tokens.Close()
	server := httptest.NewTLSServer(challenge(&tokens.URL))
	defer server.Close()
	conf := t.TempDir()
	writePEM(t, filepath.Join(conf, "ca.pem"), "CERTIFICATE", server.Certificate().Raw)
	hostsToml(t, conf, "example.com", fmt.Sprintf("server = %q\nca = %q\n", server.URL, filepath.Join(conf, "ca.pem")))
	s := newStore(t, Options{RegistryConfigDir: conf})
	c := *withPassword
	c.ServerAddress = strings.TrimPrefix(server.URL, "https://")
	if _, err := s.Pull(t.Context(), "example.com/app", &c); !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("pull: %v", err)
	}
	if strings.Contains(plain.String(), password) {
		t.Errorf("the password went over the wire: %s", plain.String())
	}
}

// Headers that the configuration gives to a registry do not go along to where it
// redirects.
func TestPullKeepsConfiguredHeadersToTheirHost(t *testing.T) {
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var elsewhere strings.Builder
	blobs := httptest.NewServer(bodies(&elsewhere, backend.ServeHTTP))
	defer blobs.Close()
	var got requests
	host := newRegistry(t, func(http.Handler) http.Handler {
		return got.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
				http.Redirect(w, r, blobs.URL+r.URL.Path, http.StatusTemporaryRedirect)
				return
			}
			backend.ServeHTTP(w, r)
		}))
	})
	pushSmall(t, host+"/app", "x")
	conf := t.TempDir()
	hostsToml(t, conf, "registry.test", fmt.Sprintf("server = %q\n[header]\nX-Key = %q\n", "http://"+host, password))
	s := newStore(t, Options{RegistryConfigDir: conf})
	got.reset()
	mustPull(t, s, "registry.test/app")
	if got.list[0].Header.Get("X-Key") != password {
		t.Error("the registry did not get its header")
	}
	if text := elsewhere.String(); !strings.Contains(text, "GET") || strings.Contains(text, password) {
		t.Errorf("the blob store saw: %s", text)
	}
}

// A registry that repeats secrets in its answers does not bring them into errors.
func TestPullErrorsTellNoSecrets(t *testing.T) {
	const token = "a-token-of-the-server"
	host := newRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, secret, _ := r.BasicAuth()
			switch {
			case r.URL.Path == "/token":
				fmt.Fprintf(w, `{"token":%q,"access_token":%q}`, token, token)
			case strings.Contains(r.URL.Path, "/basic/") && secret == "":
				header(401, "WWW-Authenticate", `Basic realm="x"`)(w, r)
			case r.Header.Get("Authorization") == "":
				header(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))(w, r)
			default:
				w.WriteHeader(403)
				fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"you said %s, that is %s and %s"}]}`, r.Header.Get("Authorization"), user, secret)
			}
		})
	})
	s := newStore(t, Options{})
	for _, c := range []*Credentials{
		withPassword, {Auth: encoded("ann:" + password)}, {IdentityToken: password}, {RegistryToken: password},
	} {
		for _, name := range []string{"/basic/app", "/app"} {
			_, err := s.Pull(t.Context(), host+name, c)
			if !errdefs.IsPermissionDenied(err) && !errdefs.IsUnauthorized(err) {
				t.Errorf("pull: %v", err)
			}
			for _, secret := range []string{password, encoded("ann:" + password), token} {
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("with %+v: %v", c, err)
				}
			}
		}
	}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A registry may want to know who asks, by certificate.
func TestPullWithClientCertificate(t *testing.T) {
	needRoot(t)
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}
	host := strings.TrimPrefix(server.URL, "https://")
	pushSmall(t, host+"/app", "x", remote.WithTransport(transport))

	conf := t.TempDir()
	s := newStore(t, Options{RegistryConfigDir: conf})
	toml := fmt.Sprintf("server = %q\nca = \"ca.crt\"\n", server.URL)
	hostsToml(t, conf, "example.com", toml)
	dir := filepath.Join(conf, "example.com")
	writePEM(t, filepath.Join(dir, "ca.crt"), "CERTIFICATE", server.Certificate().Raw)
	if _, err := s.Pull(t.Context(), "example.com/app", nil); err == nil {
		t.Error("pulled without a certificate")
	}
	hostsToml(t, conf, "example.com", toml+"client = [[\"me.cert\", \"me.key\"]]\n")
	writePEM(t, filepath.Join(dir, "me.cert"), "CERTIFICATE", cert)
	writePEM(t, filepath.Join(dir, "me.key"), "EC PRIVATE KEY", keyDER)
	if _, err := s.Pull(t.Context(), "example.com/app", nil); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	hostsToml(t, conf, "example.com", toml+"client = \"absent.pem\"\n")
	if _, err := s.Pull(t.Context(), "example.com/app", nil); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("with a certificate that is not there: %v", err)
	}
	// Without hosts.toml the directory is as Docker lays it out.
	if err := os.Rename(dir, filepath.Join(conf, strings.ReplaceAll(host, ":", "_")+"_")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(conf, strings.ReplaceAll(host, ":", "_")+"_", "hosts.toml")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), host+"/app", nil); err != nil {
		t.Errorf("with Docker's files: %v", err)
	}
}

func TestParseHosts(t *testing.T) {
	for _, good := range []string{
		"", "server = \"https://registry.test\"\n", "server = \"registry.test:5000\"\nskip_verify = true\n",
		"[host.\"https://m.test\"]\n  capabilities = [\"pull\", \"Resolve\"]\n  ca = [\"a\", \"b\"]\n  client = [\"a\", [\"b\", \"c\"]]\n  dial_timeout = \"5s\"\n  override_path = true\n  [host.\"https://m.test\".header]\n    A = \"x\"\n    B = [\"y\"]\n",
		"[host.\"m.test\"]\n", "client = \"a\"\nca = \"b\"\n",
	} {
		if _, err := parseHosts([]byte(good)); err != nil {
			t.Errorf("%s\n%v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"server = [broken\n": "line 1", "server = 5\n": "line 1", "\nsevrer = \"x\"\n": "line 2: unknown key \"sevrer\"",
		"[host.\"https://m.test\"]\ncapabilites = [\"pull\"]\n": "capabilites",
		"[host.\"https://m.test\"]\ncapabilities = [\"pul\"]\n": "pul",
		"server = \"ftp://x\"\n":                                "form https://",
		"server = \"https://a:hush@x\"\n":                       "more than host",
		"server = \"https://x/?a=hush\"\n":                      "more than host",
		"dial_timeout = \"soon\"\n":                             "dial_timeout",
		"ca = 5\n":                                              "ca",
		"ca = [[\"a\"]]\n":                                      "ca",
		"client = [[\"a\"]]\n":                                  "client",
		"client = [5]\n":                                        "client",
		"[header]\nA = 5\n":                                     "A",
		"[header]\nA = [\"hush\", 5]\n":                         "A",
		"host = {\"https://m.test\" = {}}\n":                    "table",
		"[host.\"\"]\n":                                         "host",
	} {
		_, err := parseHosts([]byte(bad))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s\n%v", bad, err)
		}
	}
}

// A file that the library would skip stops the pull: the registry itself may be
// just what it forbids.
func TestPullStopsAtABadHostsFile(t *testing.T) {
	var asked requests
	host := newRegistry(t, asked.wrap)
	pushSmall(t, host+"/app", "x")
	conf := t.TempDir()
	s := newStore(t, Options{RegistryConfigDir: conf})
	dir := strings.ReplaceAll(host, ":", "_") + "_"
	for _, bad := range []string{"capabilities = [\"pul\"]\n", "sevrer = \"x\"\n", "host = {\"https://m.test\" = {}}\n"} {
		hostsToml(t, conf, dir, bad)
		asked.reset()
		_, err := s.Pull(t.Context(), host+"/app", nil)
		if !errdefs.IsFailedPrecondition(err) || len(asked.list) > 0 {
			t.Errorf("%s%v, %d requests", bad, err, len(asked.list))
		}
	}
	hostsToml(t, conf, dir, "")
	mustPull(t, s, host+"/app")
}

// Pulls under way can be looked at.
func TestRunningPulls(t *testing.T) {
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
	list := s.Running()
	if len(list) != 1 || list[0].Name != host+"/app:v1" || list[0].Callers != 1 || list[0].Received == 0 || list[0].Since.IsZero() {
		t.Errorf("running: %+v", list)
	}
	close(th.open)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if list := s.Running(); len(list) > 0 {
		t.Errorf("afterwards: %+v", list)
	}
}

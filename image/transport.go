package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// watchedTransport is the one place that all requests of a pull go through:
// those to registries and mirrors, to the token servers that they name, and to
// where they redirect.
type watchedTransport struct {
	next    http.RoundTripper
	traffic *traffic
}

// RoundTrip implements http.RoundTripper.
func (w *watchedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req, err := w.guardSecrets(req)
	if err != nil {
		return nil, err
	}
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
	if err == nil && strings.Contains(resp.Header.Get("Content-Encoding"), "zstd") {
		resp.Body.Close()
		err = fmt.Errorf("%s compresses its answers, though it was asked not to: %w", req.URL.Host, errdefs.ErrUnavailable)
	}
	if err != nil {
		w.traffic.end()
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, traffic: w.traffic, document: !asksForBlob(originalRequest(req))}
	w.noteRefusal(req, resp)
	return resp, nil
}

// guardSecrets prepares a request so that no secret goes where it was not meant
// to go, or refuses it. The request itself stays as it is.
func (w *watchedTransport) guardSecrets(req *http.Request) (*http.Request, error) {
	first := originalRequest(req)
	elsewhere := first.URL.Host != req.URL.Host || first.URL.Scheme != req.URL.Scheme
	// Only the request for a token has a body, and in it the password.
	if req.Method == http.MethodPost && elsewhere {
		return nil, fmt.Errorf("the token server %s redirects to %s, which shall not see the credentials: %w",
			first.URL.Host, req.URL.Host, docker.ErrInvalidAuthorization)
	}
	out := req.Clone(req.Context())
	if elsewhere {
		dropInherited(out.Header, first.Header)
	}
	secret := out.Header.Get("Authorization")
	if w.traffic.tlsOnly.Load() && req.URL.Scheme == "http" && (secret != "" || req.Method == http.MethodPost) {
		return nil, fmt.Errorf("%s does not speak TLS, and shall not see credentials for a registry that does: %w",
			req.URL.Host, docker.ErrInvalidAuthorization)
	}
	w.traffic.noteSecret(secret)
	// A part of a compressed answer is no part of the blob, and decompression
	// would cost memory at the registry's choice.
	out.Header.Set("Accept-Encoding", "identity")
	return out, nil
}

// dropInherited leaves of a redirected request's headers what another host needs
// to know. net/http lets secrets through to other ports and to subdomains, and
// all configured headers to everybody. An authorization that differs from the
// first one was set for the new host.
func dropInherited(h, first http.Header) {
	for key := range h {
		switch key {
		case "Accept", "Range", "User-Agent":
		case "Authorization":
			if h.Get(key) == first.Get(key) {
				h.Del(key)
			}
		default:
			h.Del(key)
		}
	}
}

// originalRequest is the request at the beginning of a chain of redirects.
func originalRequest(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

// asksForBlob tells blobs, of a size that is checked elsewhere, from what is read
// into memory or to an unknown end: manifests, tokens, errors.
func asksForBlob(req *http.Request) bool {
	return path.Base(path.Dir(req.URL.Path)) == "blobs"
}

// noteRefusal repeats a refused look at a manifest as a GET: images are resolved
// with HEAD, whose answer has no room for the reason. A first 401 is no refusal,
// but the way to ask for credentials.
func (w *watchedTransport) noteRefusal(req *http.Request, resp *http.Response) {
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

// watchedBody is the body of an answer.
type watchedBody struct {
	io.ReadCloser
	traffic  *traffic
	document bool // no blob: bounded
	n        int64
	once     sync.Once
}

// brokenOff is an error in the middle of an answer.
type brokenOff struct{ err error }

func (e brokenOff) Error() string { return "the answer breaks off: " + e.err.Error() }
func (e brokenOff) Unwrap() error { return e.err }

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.traffic.took(n)
	if b.n += int64(n); b.document && b.n > maxDocument {
		return n, fmt.Errorf("the registry sends a document of more than %d bytes: %w", maxDocument, errdefs.ErrInvalidArgument)
	}
	var network net.Error
	switch {
	case err == nil, err == io.EOF, err == io.ErrUnexpectedEOF, errors.As(err, &network),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return n, err
	}
	return n, brokenOff{err} // HTTP/2 has error types of its own
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.once.Do(b.traffic.end)
	return b.ReadCloser.Close()
}

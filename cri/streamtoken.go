package cri

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// tokenLife is how long a token can be used.
const tokenLife = time.Minute

// maxStreams bounds the tokens that can still be used and the streams that run,
// together: a token is a place that is kept for its client. Who may ask for them
// over CRI is trusted, but asks for others, who may go to a command in their own
// pod as often as they like. Each stream takes descriptors of the daemon.
const maxStreams = 1000

// grant is what a token is good for, once.
type grant struct {
	kind    string // the part of the URL before the token
	serve   http.HandlerFunc
	expires time.Time
}

// tokens are those that were given out and not used. Safe for concurrent use; mu
// is taken before the lock of connections.
type tokens struct {
	open *connections

	mu sync.Mutex
	// By token.
	grants map[string]grant // +checklocks:mu
}

// issue returns a new token. No place left is errdefs.ErrResourceExhausted.
func (t *tokens) issue(kind string, serve http.HandlerFunc) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(t.grants, func(_ string, g grant) bool { return g.over(now) })
	if len(t.grants)+t.open.running() >= maxStreams {
		return "", fmt.Errorf("%d streams run or are waited for, and no more are served at once; end some, or try again in a minute: %w", maxStreams, errdefs.ErrResourceExhausted)
	}
	token := rand.Text() // more than 128 bits
	t.grants[token] = grant{kind: kind, serve: serve, expires: now.Add(tokenLife)}
	return token, nil
}

// redeem uses a token up, also when it is of another kind, and gives the client's
// connection the token's place. It returns nil for a token that is not good.
func (t *tokens) redeem(kind, token string, client *clientConn) http.HandlerFunc {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.grants[token]
	delete(t.grants, token)
	if !ok || g.kind != kind || g.over(time.Now()) {
		return nil
	}
	t.open.admit(client)
	return g.serve
}

func (g grant) over(now time.Time) bool { return now.After(g.expires) }

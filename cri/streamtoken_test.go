package cri

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func newTokens() *tokens { return &tokens{open: newConnections(), grants: map[string]grant{}} }

// arrive makes a connection that waits.
func arrive(t *testing.T, open *connections) *clientConn {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	c := &clientConn{Conn: there, cancel: func() {}, among: open}
	if last := open.add(c); last != nil {
		last.Close()
	}
	return c
}

func nothing(http.ResponseWriter, *http.Request) {}

// TestTokensArePlaces: there are so many and no more, whether they are waited for
// or taken.
func TestTokensArePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		var streams []*clientConn
		for i := range maxStreams {
			token, err := tokens.issue("exec", nothing)
			if err != nil {
				t.Fatalf("token %d: %v", i, err)
			}
			if i%2 == 0 {
				c := arrive(t, tokens.open)
				if tokens.redeem("exec", token, c) == nil {
					t.Fatalf("token %d is not good", i)
				}
				streams = append(streams, c)
			}
		}
		full := func(when string) {
			t.Helper()
			if _, err := tokens.issue("exec", nothing); !errdefs.IsResourceExhausted(err) {
				t.Fatalf("%s: %v", when, err)
			}
		}
		full("all places are given")
		streams[0].Close()
		if _, err := tokens.issue("exec", nothing); err != nil {
			t.Fatalf("a stream has ended: %v", err)
		}
		full("its place is given again")
		time.Sleep(tokenLife + time.Second)
		for i := range maxStreams - len(streams) + 1 {
			if _, err := tokens.issue("exec", nothing); err != nil {
				t.Fatalf("token %d after those before had their time: %v", i, err)
			}
		}
		full("all are given again")
	})
}

func TestTokensAreForOneUseInTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		issue := func() string {
			token, err := tokens.issue("exec", nothing)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		good := func(kind, token string) bool { return tokens.redeem(kind, token, arrive(t, tokens.open)) != nil }
		used, crossed, late, soon := issue(), issue(), issue(), issue()
		if !good("exec", used) || good("exec", used) {
			t.Error("a token is not for one use")
		}
		if good("attach", crossed) || good("exec", crossed) {
			t.Error("a token was good for another kind, or after such a use")
		}
		if good("exec", "") || good("exec", strings.ToLower(late)) {
			t.Error("what is no token is good")
		}
		time.Sleep(tokenLife)
		if !good("exec", soon) {
			t.Error("a token ended before its time")
		}
		time.Sleep(time.Second)
		if good("exec", late) {
			t.Error("a token is good after its time")
		}
	})
}

// TestTokensDropTheLongestWaiting, when there is no place to wait, and no stream ever.
func TestTokensDropTheLongestWaiting(t *testing.T) {
	tokens := newTokens()
	token, err := tokens.issue("exec", nothing)
	if err != nil {
		t.Fatal(err)
	}
	stream := arrive(t, tokens.open)
	tokens.redeem("exec", token, stream)
	gone := func(c *clientConn) bool { return c.place == nil }
	var came []*clientConn
	for range maxWaiting + 3 {
		came = append(came, arrive(t, tokens.open))
	}
	for i, c := range came {
		if want := i < 3; gone(c) != want {
			t.Errorf("connection %d is gone: %v", i, !want)
		}
	}
	if n := tokens.open.running(); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
	// One that had to go before it showed its token does not come back.
	token, _ = tokens.issue("exec", nothing)
	tokens.redeem("exec", token, came[0])
	if n := tokens.open.running(); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
}

// TestPortForwardConnectionsAreBounded: one stream can carry any number.
func TestPortForwardConnectionsAreBounded(t *testing.T) {
	f := forwarder{places: make(chan struct{}, 1)}
	f.places <- struct{}{}
	if err := f.PortForward(t.Context(), "pod", "", 80, nil); !errdefs.IsResourceExhausted(err) {
		t.Errorf("error %v", err)
	}
	if len(f.places) != 1 {
		t.Error("a refusal gave a place back")
	}
}

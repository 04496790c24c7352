package cri

import (
	"container/list"
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A client that goes away is seen by the connection alone: once a request has
// become a stream, its context no longer ends with the client. So each connection
// has a context of its own, which ends with the first failure to read from it.

// watchedListener makes its connections tell when their client goes away, and
// when the server does.
type watchedListener struct {
	net.Listener
	open *connections
}

// maxWaiting bounds the connections that have shown no token. Anybody who reaches
// the port can open as many as he likes and be silent, or ask for what is not
// there. What comes when that many wait takes the place of the one that has waited
// longest: who has a token shows it at once, and is through before that many others
// have come; who is silent keeps nobody out.
const maxWaiting = 256

// connections are those that are open. http.Server forgets those that became
// streams, which have to end with the server all the same.
type connections struct {
	mu sync.Mutex
	// Of *clientConn without a token, in the order they came.
	waiting *list.List // +checklocks:mu
	// With a token; maxStreams bounds them.
	streams map[*clientConn]struct{} // +checklocks:mu
}

func newConnections() *connections {
	return &connections{waiting: list.New(), streams: map[*clientConn]struct{}{}}
}

// Accept implements net.Listener.
func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &clientConn{Conn: conn, ctx: ctx, cancel: cancel, among: l.open}
	if last := l.open.add(c); last != nil {
		last.Close()
	}
	return c, nil
}

// add lets a connection wait, and returns the one that has to go for it, or nil.
func (o *connections) add(c *clientConn) *clientConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.place = o.waiting.PushBack(c)
	if o.waiting.Len() <= maxWaiting {
		return nil
	}
	return o.waiting.Front().Value.(*clientConn)
}

// admit makes a stream of a connection that waits. One that was closed meanwhile
// stays closed.
func (o *connections) admit(c *clientConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.place != nil {
		o.waiting.Remove(c.place)
		c.place = nil
		o.streams[c] = struct{}{}
	}
}

func (o *connections) remove(c *clientConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.place != nil {
		o.waiting.Remove(c.place)
		c.place = nil
	}
	delete(o.streams, c)
}

// running counts the streams.
func (o *connections) running() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.streams)
}

// closeAll ends all connections.
func (o *connections) closeAll() {
	o.mu.Lock()
	all := slices.Collect(maps.Keys(o.streams))
	for e := o.waiting.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*clientConn))
	}
	o.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// clientConn is a connection of one client.
type clientConn struct {
	net.Conn
	ctx    context.Context // ends when the client or the server does
	cancel context.CancelFunc
	among  *connections
	place  *list.Element // while it waits; guarded by among.mu
}

// Read implements net.Conn. A deadline is not the client's end: the server sets
// one to stop its own reading, before a connection becomes a stream.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !isTimeout(err) {
		c.cancel()
	}
	return n, err
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	c.cancel()
	c.among.remove(c)
	return c.Conn.Close()
}

type clientKey struct{}

// withClient is http.Server.ConnContext.
func withClient(ctx context.Context, conn net.Conn) context.Context {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return context.WithValue(ctx, clientKey{}, conn)
}

// client returns the connection of a request, by the request's context.
func client(ctx context.Context) *clientConn {
	c, _ := ctx.Value(clientKey{}).(*clientConn)
	return c
}

// bind returns a context that ends with the client, too.
func (c *clientConn) bind(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// closeSoon ends the connection if the client does not take the last words. There
// is no deadline: the protocols set their own with each message.
func (c *clientConn) closeSoon() {
	time.AfterFunc(lastWords, func() { c.Close() })
}

// closeIdle is http.Server.ConnState. A connection is for one request: one that was
// not answered with a stream is closed, whatever the answer was.
func closeIdle(conn net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		conn.Close()
	}
}

// lastWords is how long a client may take to read the end of a stream.
const lastWords = 5 * time.Second

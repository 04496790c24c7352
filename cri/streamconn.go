package cri

import (
	"context"
	"crypto/tls"
	"net"
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

// connections are those that are open. http.Server forgets those that became
// streams, which have to end with the server all the same.
type connections struct {
	mu  sync.Mutex
	all map[*clientConn]struct{}
}

// Accept implements net.Listener.
func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &clientConn{Conn: conn, ctx: ctx, cancel: cancel, among: l.open}
	l.open.mu.Lock()
	defer l.open.mu.Unlock()
	l.open.all[c] = struct{}{}
	return c, nil
}

// closeAll ends all connections.
func (o *connections) closeAll() {
	o.mu.Lock()
	all := make([]*clientConn, 0, len(o.all))
	for c := range o.all {
		all = append(all, c)
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
	c.among.mu.Lock()
	delete(c.among.all, c)
	c.among.mu.Unlock()
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

// client returns a context that ends with the client of a request, and a function
// that ends the client's connection if it does not take the last words soon.
func client(ctx context.Context) (context.Context, func()) {
	c, ok := ctx.Value(clientKey{}).(*clientConn)
	if !ok { // a port-forward: its context is nobody's
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		// No deadline: the protocols set their own with each message.
		time.AfterFunc(lastWords, func() { c.Close() })
	}
}

// lastWords is how long a client may take to read the end of a stream.
const lastWords = 5 * time.Second

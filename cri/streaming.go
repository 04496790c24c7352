package cri

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/stream"
)

// StreamingOptions say where Exec, Attach and PortForward are served. Who knows
// one of the tokens, which are valid for one use within a minute, may do what was
// asked for over CRI; there is no other check. So the address should stay one of
// the node's own, where the kubelet is. Whoever else reaches it can hold up neither
// the daemon nor who has a token: see maxWaiting.
type StreamingOptions struct {
	Address string // IP address to listen on
	Port    int    // 0 means a free one

	// CertFile and KeyFile are PEM files; with both, TLS is spoken. They are read
	// when the server starts.
	CertFile, KeyFile string

	IdleTimeout     time.Duration // a connection without traffic is closed
	CreationTimeout time.Duration // for the client to open the streams it asked for
}

// streamServer makes URLs, and serves the streams of clients that come to them. It
// owns its listener.
type streamServer struct {
	pods           *stream.Service
	base           url.URL
	idle, creation time.Duration

	http      *http.Server
	listener  net.Listener
	open      *connections
	tokens    *tokens
	forwarded chan struct{} // the places of forwarded connections
}

const (
	// requestTimeout bounds all that comes before a stream: the handshake of TLS,
	// the request, and an answer that is none. A stream has no deadline of these.
	requestTimeout = 10 * time.Second
	// maxHeader bounds the head of a request, in bytes.
	maxHeader = 32 << 10
)

// listenStreams opens the port; serve answers.
func listenStreams(opts StreamingOptions, pods *stream.Service) (*streamServer, error) {
	scheme, config, err := tlsOf(opts)
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	network := "tcp6" // by itself "tcp" takes 0.0.0.0 for all of IPv6, too
	if ip := net.ParseIP(opts.Address); ip.To4() != nil {
		network = "tcp4"
	}
	l, err := net.Listen(network, net.JoinHostPort(opts.Address, strconv.Itoa(opts.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	// The protocols are the library's. Its server is not: it keeps its connections
	// and tokens to itself, which are too short, and takes any number of clients.
	open := newConnections()
	s := &streamServer{
		pods: pods, base: url.URL{Scheme: scheme, Host: reachable(l.Addr().(*net.TCPAddr))},
		idle: opts.IdleTimeout, creation: opts.CreationTimeout,
		listener: watchedListener{l, open}, open: open, tokens: &tokens{open: open, grants: map[string]grant{}},
		forwarded: make(chan struct{}, maxForwarded),
	}
	// HTTP/2 cannot be upgraded to a stream protocol.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler: s, TLSConfig: config, Protocols: &protocols, ConnContext: withClient, ConnState: closeIdle,
		ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(serverLog{}, "", 0),
	}
	return s, nil
}

// ServeHTTP implements http.Handler: it answers who has a token, and nobody else.
func (s *streamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	conn := client(r.Context())
	serve := s.tokens.redeem(kind, token, conn)
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	ctx, end := conn.bind(r.Context())
	defer end()
	defer conn.closeSoon() // the library forgets the client that opens no streams
	serve(w, r.WithContext(ctx))
}

// serverLog is where http.Server tells what went wrong. A handshake that failed is
// a stranger's, who could fill a disk with them.
type serverLog struct{}

// Write implements io.Writer.
func (serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: TLS handshake error") {
		klog.V(4).InfoS("Failed to serve streams", "err", text)
	} else {
		klog.ErrorS(nil, "Failed to serve streams", "err", text)
	}
	return len(line), nil
}

func tlsOf(opts StreamingOptions) (scheme string, _ *tls.Config, err error) {
	if opts.CertFile == "" && opts.KeyFile == "" {
		return "http", nil, nil
	}
	cert, err := tls.LoadX509KeyPair(opts.CertFile, opts.KeyFile)
	if err != nil {
		return "", nil, fmt.Errorf("load certificate: %w", err)
	}
	return "https", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// reachable is the host of the URLs: for a server on all addresses, loopback,
// since the client is the kubelet or crictl on this node.
func reachable(addr *net.TCPAddr) string {
	host := addr.IP.String()
	switch {
	case addr.IP.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case addr.IP.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// serve answers until stop.
func (s *streamServer) serve() {
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		klog.ErrorS(err, "Failed to serve streams")
	}
}

// stop closes the port and all streams.
func (s *streamServer) stop() {
	_ = s.http.Close()
	_ = s.listener.Close() // should it not have been served yet
	s.open.closeAll()
}

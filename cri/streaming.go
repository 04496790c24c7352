package cri

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox"
)

// StreamingOptions say where Exec, Attach and PortForward are served. Who knows
// one of the tokens, which are valid for one use within a minute, may do what was
// asked for over CRI; there is no other check. So the address should stay one of
// the node's own, where the kubelet is.
type StreamingOptions struct {
	Address string // IP address to listen on
	Port    int    // 0 means a free one

	// CertFile and KeyFile are PEM files; with both, TLS is spoken. They are read
	// when the server starts.
	CertFile, KeyFile string

	IdleTimeout     time.Duration // a connection without traffic is closed
	CreationTimeout time.Duration // for the client to open the streams it asked for
}

// streamServer serves the streams of clients. It owns its listener.
type streamServer struct {
	streaming.Server // makes URLs, and answers on them
	http             *http.Server
	listener         net.Listener
	open             *connections
}

// headerTimeout bounds how long a client may take to send a request's head.
const headerTimeout = 30 * time.Second

// listenStreams opens the port; serve answers.
func listenStreams(opts StreamingOptions, pods *podsandbox.Manager) (*streamServer, error) {
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
	cfg := streaming.DefaultConfig
	cfg.BaseURL = &url.URL{Scheme: scheme, Host: reachable(l.Addr().(*net.TCPAddr))}
	cfg.StreamIdleTimeout, cfg.StreamCreationTimeout = opts.IdleTimeout, opts.CreationTimeout
	server, err := streaming.NewServer(cfg, &streamRuntime{pods: pods})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	// Not the package's own listener: it keeps the address to itself until it has
	// been asked for, and does not tell when a client goes away.
	open := &connections{all: map[*clientConn]struct{}{}}
	s := &streamServer{Server: server, listener: watchedListener{l, open}, open: open}
	s.http = &http.Server{
		Handler: server, TLSConfig: config, ReadHeaderTimeout: headerTimeout, ConnContext: withClient,
		ErrorLog: klog.NewStandardLogger("WARNING"),
	}
	return s, nil
}

func tlsOf(opts StreamingOptions) (scheme string, _ *tls.Config, err error) {
	if opts.CertFile == "" && opts.KeyFile == "" {
		return "http", nil, nil
	}
	cert, err := tls.LoadX509KeyPair(opts.CertFile, opts.KeyFile)
	if err != nil {
		return "", nil, fmt.Errorf("load certificate: %w", err)
	}
	// HTTP/2 cannot be upgraded to a stream protocol.
	return "https", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
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
		klog.ErrorS(err, "Serve streams")
	}
}

// stop closes the port and all streams.
func (s *streamServer) stop() {
	_ = s.http.Close()
	_ = s.listener.Close() // should it not have been served yet
	s.open.closeAll()
}

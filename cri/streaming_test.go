package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:80", "0.0.0.0": "127.0.0.1:80", "::": "[::1]:80", "10.1.2.3": "10.1.2.3:80", "fd00::1": "[fd00::1]:80",
	} {
		if got := reachable(&net.TCPAddr{IP: net.ParseIP(in), Port: 80}); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestListenStreamsNeedsItsCertificate(t *testing.T) {
	_, err := listenStreams(StreamingOptions{Address: "127.0.0.1", CertFile: filepath.Join(t.TempDir(), "none"), KeyFile: "none"}, nil)
	if err == nil {
		t.Error("a certificate that is not there was loaded")
	}
}

// hijacked serves one connection that has become a stream, and returns the
// client's end and the stream's context.
func hijacked(t *testing.T) (*connections, net.Conn, context.Context) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := newConnections()
	contexts := make(chan context.Context)
	release := make(chan struct{})
	server := &http.Server{ConnContext: withClient, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		ctx, end := client(r.Context()).bind(r.Context())
		defer end()
		go io.Copy(io.Discard, conn) // as the protocols do
		contexts <- ctx
		<-release
	})}
	go server.Serve(watchedListener{l, open})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(release); server.Close(); conn.Close() })
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return open, conn, <-contexts
}

func TestConnectionsEndAContextWithItsClient(t *testing.T) {
	_, conn, ctx := hijacked(t)
	if err := ctx.Err(); err != nil {
		t.Fatalf("it ended before: %v", err)
	}
	conn.Close()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
}

func TestConnectionsEndAContextWithTheirServer(t *testing.T) {
	open, conn, ctx := hijacked(t)
	open.closeAll()
	<-ctx.Done()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want EOF", err)
	}
	open.mu.Lock()
	defer open.mu.Unlock()
	if n := len(open.streams) + open.waiting.Len(); n != 0 {
		t.Errorf("%d connections are remembered", n)
	}
}

// TestServerLogIsNotFilledByStrangers: each of their handshakes fails.
func TestServerLogIsNotFilledByStrangers(t *testing.T) {
	var log bytes.Buffer
	klog.LogToStderr(false)
	klog.SetOutput(&log)
	defer klog.LogToStderr(true)
	fmt.Fprintln(serverLog{}, "http: TLS handshake error from 127.0.0.1:4242: EOF")
	klog.Flush()
	if log.Len() > 0 {
		t.Errorf("it is logged: %s", &log)
	}
	fmt.Fprintln(serverLog{}, "http: Accept error: too many open files")
	klog.Flush()
	if !strings.Contains(log.String(), "too many open files") {
		t.Errorf("an error of the server's own is not logged: %q", &log)
	}
}

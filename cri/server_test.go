package cri

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox"
)

// TestServerBoundsCallsOfAConnection: the server says so in the first frame.
func TestServerBoundsCallsOfAConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen("unix://"+path, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Pods: &podsandbox.Manager{}, Streaming: StreamingOptions{Address: "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Stop(0)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("frame %v", frame)
	}
	if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != maxCalls {
		t.Errorf("limit %d, %v; want %d", n, ok, maxCalls)
	}
}

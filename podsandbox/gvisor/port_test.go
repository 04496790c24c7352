package gvisor

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestDialPort(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "nc -ll -p 7000 -e cat & echo ready; wait"))
	c.waitFor(t, "ready")
	ctx := testContext(t)
	var conn net.Conn
	eventually(t, func() (err error) { conn, err = p.DialPort(ctx, 7000); return err })
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go conn.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the echo differs: %v", err)
	}
	if _, err := p.DialPort(ctx, 7001); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a port that nobody listens on: %v, want FailedPrecondition", err)
	}
}

func TestDialPortOnTheHostsNetwork(t *testing.T) {
	p := startPod(t, func(c *engine.Config) { c.NetNS = "" })
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no %s here: %v", address, err)
			continue
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		conn, err := p.DialPort(testContext(t), port)
		if err != nil {
			t.Errorf("%s: %v", address, err)
		} else {
			conn.Close()
		}
		l.Close()
		if _, err := p.DialPort(testContext(t), port); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s after its listener ended: %v, want FailedPrecondition", address, err)
		}
	}
}

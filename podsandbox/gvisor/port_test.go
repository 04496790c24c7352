package gvisor

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
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
	conns := []net.Conn{conn}
	for range 9 {
		conn, err := p.DialPort(ctx, 7000)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			sent := bytes.Repeat([]byte(fmt.Sprint("connection ", i)), 1<<16)
			go func() {
				conn.Write(sent)
				conn.(*net.UnixConn).CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
			}
		})
	}
	wg.Wait()
	if _, err := p.DialPort(ctx, 7001); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a port that nobody listens on: %v, want FailedPrecondition", err)
	}
	eventually(t, func() error { // and nothing of it stays
		ps, err := p.control.processes(ctx, p.cfg.ID)
		if err == nil && len(ps) != 1 {
			err = fmt.Errorf("%d processes in the root container", len(ps))
		}
		return err
	})
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

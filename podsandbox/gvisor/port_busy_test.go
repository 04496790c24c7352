package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Both ways of each connection are full at once here, and filled in pieces of
// 64 KiB, at which netstack's own buffers stand still (see guest.Connect).
func TestDialPortOfBusyEnds(t *testing.T) {
	const pieces = 64
	sent := make([]byte, pieces<<16)
	// What it takes for a receiver that does not read to be full. When this is too
	// short for a slow machine, the test proves less.
	const full = time.Second
	write := fmt.Sprintf("dd if=/dev/zero bs=65536 count=%d 2>/dev/null", pieces)
	for name, c := range map[string]struct {
		server string
		client func(net.Conn) error
	}{
		"server that writes what it has read": {"cat", func(conn net.Conn) error {
			return bothWays(conn, sent)
		}},
		"server that reads when it has written all": {
			fmt.Sprintf("sleep %v; %s; cat >/dev/null", full.Seconds(), write),
			func(conn net.Conn) error { return bothWays(conn, sent) },
		},
		"client that reads when it has written all": {
			write + " & cat >/dev/null; wait",
			func(conn net.Conn) error {
				time.Sleep(full)
				if err := writeAll(conn, sent); err != nil {
					return err
				}
				return readAll(conn, sent)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t)
			container := p.start(shell(newRootfs(t), "nc -ll -p 7000 -e sh -c '"+c.server+"' & echo ready; wait"))
			container.waitFor(t, "ready")
			eventually(t, func() error {
				conn, err := p.DialPort(testContext(t), 7000)
				if err == nil {
					conn.Close()
				}
				return err
			})
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					conn, err := p.DialPort(testContext(t), 7000)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(time.Minute))
					if err := c.client(conn); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func bothWays(conn net.Conn, data []byte) error {
	wrote := make(chan error, 1)
	go func() { wrote <- writeAll(conn, data) }()
	return errors.Join(readAll(conn, data), <-wrote)
}

func writeAll(conn net.Conn, data []byte) error {
	if n, err := conn.Write(data); err != nil {
		return fmt.Errorf("%d of %d bytes written: %w", n, len(data), err)
	}
	return conn.(*net.UnixConn).CloseWrite()
}

func readAll(conn net.Conn, want []byte) error {
	got, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", len(got), len(want), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d of %d bytes came back, or others", len(got), len(want))
	}
	return nil
}

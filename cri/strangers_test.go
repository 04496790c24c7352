package cri

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pipes is a listener without a network, for time that is not real.
type pipes struct {
	come   chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func newPipes() *pipes {
	p := &pipes{come: make(chan net.Conn)}
	p.closed, p.close = context.WithCancel(context.Background())
	return p
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.come:
		return conn, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.close()
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.come <- there
	return here
}

// newStreamServer serves on a port of loopback, or on l.
func newStreamServer(t *testing.T, l net.Listener) *streamServer {
	t.Helper()
	s, err := listenStreams(StreamingOptions{Address: "127.0.0.1", IdleTimeout: time.Hour, CreationTimeout: time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l != nil {
		s.listener.Close()
		s.listener = watchedListener{l, s.open}
	}
	go s.serve()
	return s
}

// echo is a stream that says what it hears.
func echo(w http.ResponseWriter, _ *http.Request) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	io.Copy(conn, buf)
}

// ask sends a request for an echo and returns what it is answered with.
func ask(t *testing.T, conn net.Conn, token string) (*bufio.Reader, *http.Response) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "GET /echo/%s HTTP/1.1\r\nHost: x\r\n\r\n", token); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(conn)
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	return from, resp
}

// says sends a line on a stream and wants it back.
func says(t *testing.T, conn net.Conn, from *bufio.Reader, line string) {
	t.Helper()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	if got, err := from.ReadString('\n'); got != line {
		t.Fatalf("heard %q, %v; want %q", got, err, line)
	}
}

// TestStreamServerStrangersKeepNobodyOut: who has no token takes few descriptors, and
// no place of those who have one.
func TestStreamServerStrangersKeepNobodyOut(t *testing.T) {
	s := newStreamServer(t, nil)
	defer s.stop()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	token := func() string {
		token, err := s.tokens.issue("echo", echo)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	early := dial()
	fromEarly, _ := ask(t, early, token())
	for i := range 3 * maxWaiting {
		stranger := dial()
		switch i % 3 {
		case 1:
			io.WriteString(stranger, "GET /exec/")
		case 2:
			io.WriteString(stranger, "GET /echo/AAAA HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if i%16 == 0 {
			client := dial()
			from, resp := ask(t, client, token())
			if resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("after %d strangers: %s", i+1, resp.Status)
			}
			says(t, client, from, "hello\n")
			client.Close()
		}
		s.open.mu.Lock()
		waiting := s.open.waiting.Len()
		s.open.mu.Unlock()
		if waiting > maxWaiting+1 { // the newest, while the oldest goes
			t.Fatalf("%d connections wait", waiting)
		}
	}
	says(t, early, fromEarly, "still here\n")
}

// TestStreamServerClosesWhatIsNoStream: no answer but a stream leaves a connection
// open, not even for the time that a request may take.
func TestStreamServerClosesWhatIsNoStream(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		status  int
	}{
		"no token":           {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404},
		"invented token":     {"POST /exec/AAAA HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 404},
		"token, no protocol": {"GET TOKEN HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"large head":         {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n", 431},
		"no HTTP":            {"hello\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				s := newStreamServer(t, l)
				defer s.stop()
				url, err := s.exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"true"}, Stdout: true})
				if err != nil {
					t.Fatal(err)
				}
				conn := l.dial()
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(requestTimeout / 2))
				go io.WriteString(conn, strings.Replace(tc.request, "TOKEN", strings.TrimPrefix(url, s.base.String()), 1))
				from := bufio.NewReader(conn)
				resp, err := http.ReadResponse(from, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				if resp.StatusCode != tc.status {
					t.Errorf("%s, want %d", resp.Status, tc.status)
				}
				if _, err := from.ReadByte(); err != io.EOF {
					t.Errorf("the connection is not closed: %v", err)
				}
			})
		})
	}
}

// TestStreamServerLetsOnlyAStreamBeSlow: a request has a moment, a stream all the time
// that it wants.
func TestStreamServerLetsOnlyAStreamBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newStreamServer(t, l)
		defer s.stop()
		token, err := s.tokens.issue("echo", echo)
		if err != nil {
			t.Fatal(err)
		}
		stream := l.dial()
		from, _ := ask(t, stream, token)
		var slow []net.Conn
		for _, begin := range []string{"", "GET /ec", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"} {
			conn := l.dial()
			if _, err := io.WriteString(conn, begin); err != nil {
				t.Fatal(err)
			}
			slow = append(slow, conn)
		}
		time.Sleep(2 * requestTimeout)
		for i, conn := range slow {
			conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("slow request %d: %v", i, err)
			}
		}
		time.Sleep(3 * time.Hour)
		says(t, stream, from, "three hours later\n")
		stream.Close()
	})
}

// TestStreamServerEndsWhoOpensNoStreams: the library gives up and forgets the connection.
func TestStreamServerEndsWhoOpensNoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newStreamServer(t, l)
		defer s.stop()
		url, err := s.exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"true"}, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		conn := l.dial()
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
			strings.TrimPrefix(url, s.base.String()))
		from := bufio.NewReader(conn)
		resp, err := http.ReadResponse(from, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%v, %v", resp, err)
		}
		if n := s.open.running(); n != 1 {
			t.Errorf("%d streams, want 1", n)
		}
		conn.SetDeadline(time.Now().Add(s.creation + 2*lastWords))
		if _, err := io.Copy(io.Discard, from); err != nil {
			t.Errorf("the connection is not closed: %v", err)
		}
		if n := s.open.running(); n != 0 {
			t.Errorf("%d streams, want 0", n)
		}
	})
}

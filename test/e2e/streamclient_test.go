package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// remote is a client of exec or attach, in version 4 of the protocol.
type remote struct {
	k                kit
	conn             httpstream.Connection
	stdin, resize    httpstream.Stream
	errors           httpstream.Stream
	out              httpstream.Stream
	stdout, stderr   transcript
	copied, answered chan struct{}
	answer           string // of the error stream; valid once answered is closed
}

// transcript is what came so far. Safe for concurrent use.
type transcript struct {
	mu   sync.Mutex
	text []byte // +checklocks:mu
}

// Write implements io.Writer.
func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	return len(b), nil
}

// String implements fmt.Stringer.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// wait waits until the transcript has the words.
func (t *transcript) wait(k kit, words string) string {
	k.Helper()
	deadline := time.Now().Add(limit)
	for !strings.Contains(t.String(), words) {
		if time.Now().After(deadline) {
			k.Fatalf("no %q in what came:\n%q", words, t)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return t.String()
}

// streamKit is a kit for tests of streams: the client's side of exec, attach and
// port-forward.
type streamKit struct{ kit }

// connect opens the named streams of an exec or attach, besides the error stream.
// Output that is not read is "lazy".
func (k streamKit) connect(url string, streams ...string) *remote {
	k.Helper()
	conn, err := testenv.DialSPDY(url, "v4.channel.k8s.io", nil)
	k.must(err)
	r := &remote{k: k.kit, conn: conn, copied: make(chan struct{}), answered: make(chan struct{})}
	k.Cleanup(func() { conn.Close() })
	open := func(kind string) httpstream.Stream {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}})
		k.must(err)
		return s
	}
	r.errors = open("error")
	var copies sync.WaitGroup
	for _, kind := range []string{"stdin", "stdout", "stderr", "resize"} {
		if !slices.Contains(streams, kind) {
			continue
		}
		s := open(kind)
		switch kind {
		case "stdin":
			r.stdin = s
		case "resize":
			r.resize = s
		case "stdout":
			r.out = s
			if !slices.Contains(streams, "lazy") {
				copies.Go(func() { io.Copy(&r.stdout, s) })
			}
		case "stderr":
			copies.Go(func() { io.Copy(&r.stderr, s) })
		}
	}
	go func() {
		text, _ := io.ReadAll(r.errors)
		r.answer = string(text)
		close(r.answered)
	}()
	go func() { copies.Wait(); close(r.copied) }()
	return r
}

// send types.
func (r *remote) send(text string) {
	r.k.Helper()
	if _, err := r.stdin.Write([]byte(text)); err != nil {
		r.k.Fatalf("send %q: %v", text, err)
	}
}

// size tells the size of the client's terminal.
func (r *remote) size(rows, columns int) {
	r.k.Helper()
	r.k.must(json.NewEncoder(r.resize).Encode(map[string]int{"Height": rows, "Width": columns}))
}

// end waits for the end and returns the exit code, or -1 and the error.
func (r *remote) end() (int, string) {
	r.k.Helper()
	select {
	case <-r.answered:
	case <-time.After(limit):
		r.k.Fatalf("no end; stdout so far:\n%q", &r.stdout)
	}
	<-r.copied
	var status struct {
		Status, Message string
		Details         struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal([]byte(r.answer), &status); err != nil {
		return -1, r.answer
	}
	if status.Status == "Success" {
		return 0, ""
	}
	for _, c := range status.Details.Causes {
		if c.Reason == "ExitCode" {
			code, err := strconv.Atoi(c.Message)
			r.k.must(err)
			return code, ""
		}
	}
	return -1, status.Message
}

// exits checks the exit code.
func (r *remote) exits(want int) {
	r.k.Helper()
	if code, msg := r.end(); code != want {
		r.k.Errorf("exit code %d (%s), want %d; stdout:\n%q", code, msg, want, &r.stdout)
	}
}

// endStdin ends the input. Its error says nothing: the library writes the end, and then
// no data, which fails when the other side has answered with the end of everything.
func (r *remote) endStdin() { _ = r.stdin.Close() }

// execURL asks for an exec, with a terminal if tty is set.
func (k streamKit) execURL(id string, tty bool, cmd ...string) string {
	k.Helper()
	resp, err := k.runtime().Exec(k.ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: cmd, Tty: tty, Stdin: true, Stdout: true, Stderr: !tty})
	k.must(err)
	return resp.Url
}

// execute runs a command in a container.
func (k streamKit) execute(id string, cmd ...string) *remote {
	k.Helper()
	return k.connect(k.execURL(id, false, cmd...), "stdin", "stdout", "stderr")
}

// executeTTY runs a command on a terminal.
func (k streamKit) executeTTY(id string, cmd ...string) *remote {
	k.Helper()
	return k.connect(k.execURL(id, true, cmd...), "stdin", "stdout", "resize")
}

// attach attaches to a container that runs with the given options.
func (k streamKit) attach(id string, stdin, tty bool, more ...string) *remote {
	k.Helper()
	resp, err := k.runtime().Attach(k.ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: stdin, Tty: tty, Stdout: true, Stderr: !tty})
	k.must(err)
	streams := append([]string{"stdout"}, more...)
	if stdin {
		streams = append(streams, "stdin")
	}
	if tty {
		streams = append(streams, "resize")
	} else {
		streams = append(streams, "stderr")
	}
	return k.connect(resp.Url, streams...)
}

// forwarded is a connection for port-forward.
type forwarded struct {
	conn httpstream.Connection
	port int
	next func() int
}

// forward asks for a port-forward.
func (k streamKit) forward(pod string, port int) *forwarded {
	k.Helper()
	resp, err := k.runtime().PortForward(k.ctx, &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{int32(port)}})
	k.must(err)
	conn, err := testenv.DialSPDY(resp.Url, "portforward.k8s.io", nil)
	k.must(err)
	k.Cleanup(func() { conn.Close() })
	var mu sync.Mutex
	id := 0
	return &forwarded{conn: conn, port: port, next: func() int {
		mu.Lock()
		defer mu.Unlock()
		id++
		return id
	}}
}

// dial opens one forwarded connection: its data, and what goes wrong with it.
func (f *forwarded) dial() (data, errors httpstream.Stream, err error) {
	h := http.Header{"port": {fmt.Sprint(f.port)}, "requestID": {fmt.Sprint(f.next())}}
	h.Set("streamType", "error")
	if errors, err = f.conn.CreateStream(h); err != nil {
		return nil, nil, err
	}
	errors.Close() // as kubectl does: nothing is written to it
	h = h.Clone()
	h.Set("streamType", "data")
	data, err = f.conn.CreateStream(h)
	return data, errors, err
}

// withTerminal gives a container a terminal and an open stdin.
func withTerminal(c *runtimeapi.ContainerConfig) { c.Tty, c.Stdin = true, true }

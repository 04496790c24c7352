package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// brokenOut is a Sandbox whose process has been taken over: a process that does
// nothing, and a control socket that answers what the test likes.
type brokenOut struct {
	*Sandbox

	mu sync.Mutex
	// The methods that were called.
	asked map[string]bool // +checklocks:mu
	// What came with the last call of each.
	sent map[string][]*os.File // +checklocks:mu
}

// answerer answers one call on its connection, which it may keep until it returns.
type answerer func(method string, arg json.RawMessage, conn net.Conn)

func newBrokenOut(t testing.TB, e *Engine, answer answerer) *brokenOut {
	t.Helper()
	b, end := newBrokenOutOnce(t, e, answer)
	t.Cleanup(end)
	return b
}

// newBrokenOutOnce makes one that ends before its test does.
func newBrokenOutOnce(t testing.TB, e *Engine, answer answerer) (b *brokenOut, end func()) {
	t.Helper()
	cfg := engine.Config{ID: newID(t), Dir: t.TempDir(), NetNS: "/none"}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := startTime(sleep.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s := &sentry{dir: cfg.Dir, root: cfg.ID}
	if s.proc, err = openProcess(engine.Process{PID: sleep.Process.Pid, StartTime: start}); err != nil {
		t.Fatal(err)
	}
	if s.panicLog, err = newPanicLog(); err != nil {
		t.Fatal(err)
	}
	b = &brokenOut{Sandbox: e.newSandbox(cfg, s), asked: map[string]bool{}, sent: map[string][]*os.File{}}
	l, err := net.Listen("unix", filepath.Join(cfg.Dir, controlSocketName))
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	accepted := make(chan struct{})
	open := map[net.Conn]bool{}
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			open[conn] = true
			b.mu.Unlock()
			calls.Go(func() { b.serve(conn, answer) })
		}
	}()
	return b, func() {
		if err := b.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		_ = sleep.Wait()
		l.Close()
		<-accepted
		for conn := range open { // as with the end of its process
			conn.Close()
		}
		calls.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, files := range b.sent {
			closeAll(files)
		}
	}
}

func (b *brokenOut) serve(conn net.Conn, answer answerer) {
	defer conn.Close()
	var r struct {
		Method string
		Arg    json.RawMessage
	}
	in := &receiver{conn: conn.(*net.UnixConn)}
	if json.NewDecoder(in).Decode(&r) != nil {
		return
	}
	b.mu.Lock()
	b.asked[r.Method] = true
	closeAll(b.sent[r.Method])
	b.sent[r.Method] = in.files
	b.mu.Unlock()
	answer(r.Method, r.Arg, conn)
}

// receiver reads from a connection, and keeps the descriptors that come with it.
type receiver struct {
	conn  *net.UnixConn
	files []*os.File
}

func (r *receiver) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxMessageFiles))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return max(n, 0), err // on a connection that was reset, n is -1
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, perr := unix.ParseUnixRights(&m)
		err = errors.Join(err, perr)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			r.files = append(r.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// says makes an answer that is the same for all calls.
func says(text string) answerer {
	return func(_ string, _ json.RawMessage, conn net.Conn) { _, _ = conn.Write([]byte(text)) }
}

package gvisor

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// screen collects what is printed on a terminal, to its hang-up.
type screen struct {
	running
	term *terminal.Terminal
	err  error // valid once eof is closed
}

func newScreen(t *testing.T) (*screen, *os.File) {
	t.Helper()
	term, slave, err := terminal.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close(); term.Close() })
	s := &screen{term: term}
	s.eof = make(chan struct{})
	go func() {
		defer close(s.eof)
		_, s.err = io.Copy(&s.running, term)
	}()
	return s, slave
}

// startOnTerminal starts a container on a terminal that the sandbox holds.
func (p *pod) startOnTerminal(script string) *screen {
	p.t.Helper()
	s, slave := newScreen(p.t.(*testing.T))
	spec := shell(newRootfs(p.t), script)
	spec.Process.Terminal = true
	s.Container = engine.Container{
		ID: newID(p.t), Spec: spec, Stdio: [3]*os.File{slave},
		Hold: map[string]*os.File{"terminal": s.term.Master()},
	}
	ctx := testContext(p.t)
	if err := p.Create(ctx, s.Container); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Start(ctx, s.Container); err != nil {
		p.t.Fatal(err)
	}
	slave.Close()
	return s
}

// The end of the last program on a terminal is seen on its master side, after
// all that was printed, and before the container is destroyed.
func TestTerminalEndsWithItsContainer(t *testing.T) {
	p := startPod(t)
	s := p.startOnTerminal("echo one; tty; exit 5")
	st, err := p.Wait(testContext(t), s.ID)
	if err != nil || st.Code != 5 {
		t.Errorf("status %+v, %v", st, err)
	}
	select {
	case <-s.eof:
	case <-time.After(20 * time.Second):
		t.Fatal("the terminal does not end")
	}
	if !errors.Is(s.err, unix.EIO) || !strings.HasPrefix(s.String(), "one\r\n") {
		t.Errorf("printed %q, then %v", s.String(), s.err)
	}
}

func TestSignalForeground(t *testing.T) {
	p := startPod(t)
	s := p.startOnTerminal("trap 'echo window $(stty size)' WINCH; trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done")
	s.waitFor(t, "ready")
	ctx := testContext(t)
	if changed, err := s.term.Resize(terminal.Size{Rows: 33, Columns: 99}); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if err := p.SignalForeground(ctx, s.ID, int(unix.SIGWINCH)); err != nil {
		t.Fatal(err)
	}
	s.waitFor(t, "window 33 99")
	var sigErr error
	input := s.term.InputWriter(func(sig unix.Signal) { sigErr = p.SignalForeground(ctx, s.ID, int(sig)) })
	if _, err := input.Write([]byte{3}); err != nil || sigErr != nil {
		t.Fatal(err, sigErr)
	}
	s.waitFor(t, "interrupted")

	plain := p.start(shell(newRootfs(t), "sleep 1000"))
	if err := p.SignalForeground(ctx, plain.ID, int(unix.SIGINT)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a container without a terminal: %v, want FailedPrecondition", err)
	}
}

// A terminal outlives the daemon that opened it: the next one gets it back.
func TestHeldTerminal(t *testing.T) {
	old := startPod(t)
	s := old.startOnTerminal("echo ready; while read line; do echo got $line; done; echo hung up")
	s.waitFor(t, "ready")
	if err := s.term.Close(); err != nil { // as the death of the daemon does
		t.Fatal(err)
	}
	<-s.eof
	p := old.adopt()
	master, err := p.Held(s.ID, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	term, err := terminal.Adopt(master)
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	if _, err := term.InputWriter(nil).Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	var out running
	go io.Copy(&out, term)
	out.waitFor(t, "got hello")
	if strings.Contains(out.String(), "hung up") {
		t.Error("the terminal was hung up in between")
	}
	if _, err := p.Held(s.ID, "other"); !errdefs.IsNotFound(err) {
		t.Errorf("what was never held: %v, want NotFound", err)
	}
	for range 2 { // idempotent
		if err := p.Release(s.ID, "terminal"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Held(s.ID, "terminal"); !errdefs.IsNotFound(err) {
		t.Errorf("what was let go: %v, want NotFound", err)
	}
}

func TestStartExecOnATerminal(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "sleep 1000"))
	s, slave := newScreen(t)
	ctx := testContext(t)
	cmd, err := p.StartExec(ctx, c.ID, engine.Exec{
		Process: &specs.Process{
			Args: []string{"sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"}, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: true,
		},
		Stdio: [3]*os.File{slave, slave, slave},
	})
	if err != nil {
		t.Fatal(err)
	}
	slave.Close()
	s.waitFor(t, "ready")
	if err := cmd.Signal(ctx, int(unix.SIGINT)); err != nil {
		t.Fatal(err)
	}
	if st, err := cmd.Wait(ctx); err != nil || st.Code != 9 {
		t.Errorf("status %+v, %v", st, err)
	}
	<-s.eof
}

// Without a terminal a signal reaches the whole group that the command leads.
func TestStartExecWithoutATerminal(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "sleep 1000"))
	ctx := testContext(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out running
	var copied sync.WaitGroup
	copied.Go(func() { io.Copy(&out, r); r.Close() })
	cmd, err := p.StartExec(ctx, c.ID, engine.Exec{
		Process: &specs.Process{Args: []string{"sh", "-c", "echo ready; sleep 777; echo not reached"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Stdio:   [3]*os.File{nil, w, w},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	eventually(t, func() error { // the child is there
		ps, _, err := p.sh(c.ID, "ps")
		if err == nil && !strings.Contains(ps, "sleep 777") {
			err = errors.New("no child yet")
		}
		return err
	})
	if err := cmd.Signal(ctx, int(unix.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	if st, err := cmd.Wait(ctx); err != nil || st.Signal != int(unix.SIGHUP) {
		t.Errorf("status %+v, %v", st, err)
	}
	copied.Wait() // the child held the pipe, too
}

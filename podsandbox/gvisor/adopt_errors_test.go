package gvisor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Whatever this daemon is out of while it adopts a sandbox, that is not lost.
func TestAdoptWithFewDescriptors(t *testing.T) {
	p := startPod(t)
	e := newTestEngine(t)
	failed, adopted := 0, 0
	for few := range 12 {
		var s engine.Sandbox
		var err error
		withDescriptors(t, few, func() { s, err = e.Adopt(testContext(t), p.cfg, p.Process()) })
		switch {
		case err == nil:
			adopted++
			if s.(*Sandbox).sentry.fdStore == nil {
				t.Errorf("with %d descriptors it is adopted without what it holds", few)
			}
			s.(*Sandbox).sentry.proc.drop()
			s.(*Sandbox).release()
		case errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err):
			t.Errorf("with %d descriptors: %v, want Unavailable", few, err)
		default:
			failed++
		}
	}
	if failed < 3 || adopted == 0 {
		t.Errorf("%d adoptions have failed, and %d not", failed, adopted)
	}
}

// A program that cannot be listed is not one that the engine does not have.
func TestAdoptWithoutTheListOfPrograms(t *testing.T) {
	p := startPod(t)
	e := newTestEngine(t)
	e.program = filepath.Join(t.TempDir(), "gone", stagedPrefix)
	if _, err := e.Adopt(testContext(t), p.cfg, p.Process()); errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err) {
		t.Errorf("%v, want Unavailable", err)
	}
	if err := e.Reap(testContext(t), p.cfg.ID); err == nil {
		t.Error("what could not be looked for is told to be gone")
	}
	e.program = filepath.Join(t.TempDir(), stagedPrefix)
	if _, err := e.Adopt(testContext(t), p.cfg, p.Process()); !errdefs.IsNotFound(err) {
		t.Errorf("it runs no program of the engine: %v, want NotFound", err)
	}
}

// The socket's file is the node's. Who listens there is proof, and that nobody does is
// none.
func TestAdoptByTheListener(t *testing.T) {
	p := startPod(t)
	e := newTestEngine(t)
	socket := filepath.Join(p.cfg.Dir, controlSocketName)
	aside := socket + ".aside"
	if err := os.Rename(socket, aside); err != nil {
		t.Fatal(err)
	}
	adopt := func() error {
		_, err := e.Adopt(testContext(t), p.cfg, p.Process())
		return err
	}
	if err := adopt(); errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err) {
		t.Errorf("no socket: %v, want Unavailable", err)
	}
	bound, err := bindControlSocket(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := adopt(); errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err) {
		t.Errorf("nobody listens: %v, want Unavailable", err)
	}
	bound.Close()
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := adopt(); !errdefs.IsNotFound(err) {
		t.Errorf("another process listens: %v, want NotFound", err)
	}
	l.Close()
	if err := os.Rename(aside, socket); err != nil {
		t.Fatal(err)
	}
	if err := adopt(); err != nil {
		t.Errorf("as it was: %v", err)
	}
}

// bootBroken boots one of the processes that a sandbox can turn into.
func bootBroken(t *testing.T, name string) *pod {
	t.Helper()
	e := newTestEngine(t)
	e.program = brokenProgram(t, name)
	return bootPod(t, e)
}

// What a sandbox answers, or does with its socket, is no proof that it is lost.
func TestAdoptByTheAnswer(t *testing.T) {
	for name, says := range map[string]string{
		garbageSentry: "invalid answer",
		missingSentry: "not found",
		hastySentry:   "reach the sandbox: (write|read) ", // as the scheduler has it
		abruptSentry:  "reach the sandbox: read ",
		deafSentry:    "refused",
	} {
		t.Run(name, func(t *testing.T) {
			p := bootBroken(t, name)
			_, err := p.eng.Adopt(testContext(t), p.cfg, p.Process())
			if errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err) || !regexp.MustCompile(says).MatchString(err.Error()) {
				t.Errorf("%v, want Unavailable, and %q", err, says)
			}
		})
	}
	t.Run(silentSentry, func(t *testing.T) { // the right one, and slow
		p := bootBroken(t, silentSentry)
		s, err := p.eng.Adopt(testContext(t), p.cfg, p.Process())
		if err != nil {
			t.Fatal(err)
		}
		s.(*Sandbox).release()
	})
}

// As long as it is not known who listens, nobody is adopted and nobody is lost.
func TestAdoptAtTheEndOfTheContext(t *testing.T) {
	p := startPod(t)
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err := p.eng.Adopt(ctx, p.cfg, p.Process())
	if errdefs.IsNotFound(err) || !errdefs.IsUnavailable(err) {
		t.Errorf("%v, want Unavailable", err)
	}
}

func TestAdoptOfAProcessThatEnds(t *testing.T) {
	p := startPod(t)
	if err := unix.Kill(p.Process().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 20 { // at whatever moment of its end
		_, err := p.eng.Adopt(testContext(t), p.cfg, p.Process())
		if err == nil || !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) {
			t.Fatal(err)
		}
	}
	<-p.Done()
	if _, err := p.eng.Adopt(testContext(t), p.cfg, p.Process()); !errdefs.IsNotFound(err) || errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("%v, want NotFound", err)
	}
}

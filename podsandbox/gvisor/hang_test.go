package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// lease is a file that nobody can open until its lease is given up: the host's open(2)
// waits, as it does for a network file system that is away.
type lease struct {
	t testing.TB
	f *os.File
}

func newLease(t testing.TB, name string) lease {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("the file system of %s has no leases: %v", name, err)
	}
	return lease{t, f}
}

// awaitOpen returns when somebody waits for it.
func (l lease) awaitOpen() {
	l.t.Helper()
	eventually(l.t, func() error {
		if kind, err := unix.FcntlInt(l.f.Fd(), unix.F_GETLEASE, 0); err != nil || kind == unix.F_WRLCK {
			return fmt.Errorf("nobody opens it, %v", err)
		}
		return nil
	})
}

func (l lease) release() {
	l.t.Helper()
	if _, err := unix.FcntlInt(l.f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		l.t.Error(err)
	}
}

// A process that waits for the host takes no signal. That is its container's trouble:
// killing that, and destroying it, neither stops the others nor the control calls.
func TestDestroyOfAProcessThatWaitsForTheHost(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"first process":        func(s *specs.Spec) { s.Process.Args[2] = "exec cat /vol/leased" },
		"another":              func(s *specs.Spec) { s.Process.Args[2] = "cat /vol/leased; echo never" },
		"a session of its own": func(s *specs.Spec) { s.Process.Args[2] = "setsid cat /vol/leased & sleep 1000" },
		"shared, and an orphan": func(s *specs.Spec) {
			s.Linux.Namespaces = nil
			s.Process.Args[2] = "(cat /vol/leased &); sleep 1000"
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t)
			other := p.start(shell(newRootfs(t), "while :; do echo .; sleep 0.01; done"))
			spec := shell(newRootfs(t), "cat /vol/leased; echo never")
			change(spec)
			l := newLease(t, filepath.Join(writableVolume(t, spec), "leased"))
			c := p.start(spec)
			l.awaitOpen()

			within := func(d time.Duration) context.Context {
				ctx, cancel := context.WithTimeout(context.Background(), d)
				t.Cleanup(cancel)
				return ctx
			}
			lives := func(after string) {
				t.Helper()
				before := len(other.String())
				eventually(t, func() error {
					if len(other.String()) == before {
						return errors.New("the other container stands still after " + after)
					}
					return nil
				})
				if out, _, err := p.execContext(within(10*time.Second), other.ID, "echo fine"); err != nil || out != "fine\n" {
					t.Fatalf("after %s an exec in the other container says %q, %v", after, out, err)
				}
			}
			if err := p.Signal(within(10*time.Second), c.ID, int(unix.SIGKILL), true); err != nil {
				t.Errorf("kill: %v", err)
			}
			lives("the kill")
			if err := p.Destroy(within(time.Second), c.ID); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "do not end") {
				t.Errorf("destroy: %v, want DeadlineExceeded that says why", err)
			}
			lives("its destruction")
			l.release()
			eventually(t, func() error { return p.Destroy(testContext(t), c.ID) })
			if strings.Contains(c.String(), "never") {
				t.Error("it went on after it was killed")
			}
			lives("all of it")
		})
	}
}

// The pod of one that waits for the host can always be ended.
func TestKillOfASandboxThatWaitsForTheHost(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "cat /vol/leased")
	l := newLease(t, filepath.Join(writableVolume(t, spec), "leased"))
	c := p.start(spec)
	l.awaitOpen()
	if err := p.Sandbox.Kill(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if st, _ := p.Wait(testContext(t), c.ID); st.Code != 137 {
		t.Errorf("it ended with %+v", st)
	}
}

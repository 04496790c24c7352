package enginetest

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func testExec(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	for script, want := range map[string]int{"true": 0, "exit 9": 9, "false": 1} {
		if st := n.exec(c, script); st.Code != want {
			b.Errorf("%q: %+v", script, st)
		}
	}
	r, w := b.pipe()
	e := commandOf("echo some words; exit 0")
	e.Stdio[1], e.Stdio[2] = w, w
	_, err := n.Exec(b.ctx(), c.ID, e)
	b.must(err)
	w.Close()
	b.prints(r, "some words\n")
	b.ends(r) // nothing of a command is held
}

func testExecEndsWithContext(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	ctx, cancel := context.WithCancel(b.ctx())
	r, w := b.pipe()
	e := commandOf("echo begun; sleep 1000000")
	e.Stdio[1], e.Stdio[2] = w, w
	done := make(chan error, 1)
	go func() {
		_, err := n.Exec(ctx, c.ID, e)
		done <- err
	}()
	b.prints(r, "begun\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Errorf("the error is %v", err)
	}
	w.Close()
	b.ends(r) // it is dead
	if st := n.exec(c, "true"); st.Code != 0 {
		b.Errorf("the container did not go on: %+v", st)
	}
}

func testExecBadInput(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	for what, e := range map[string]engine.Exec{
		"no process": {}, "no command": {Process: &specs.Process{Cwd: "/"}},
	} {
		_, err := n.Exec(b.ctx(), c.ID, e)
		b.is("exec with "+what, err, errdefs.IsInvalidArgument)
		_, err = n.StartExec(b.ctx(), c.ID, e)
		b.is("start a command with "+what, err, errdefs.IsInvalidArgument)
	}
}

func testCommand(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	start := func(script string) engine.Command {
		cmd, err := n.StartExec(b.ctx(), c.ID, commandOf(script))
		b.must(err)
		return cmd
	}
	if st, err := start("exit 6").Wait(b.ctx()); err != nil || st.Code != 6 {
		b.Errorf("%+v, %v", st, err)
	}
	hungUp := start("sleep 1000000")
	b.must(hungUp.Signal(b.ctx(), int(unix.SIGHUP)))
	if st, err := hungUp.Wait(b.ctx()); err != nil || st.Signal != int(unix.SIGHUP) {
		b.Errorf("after a signal: %+v, %v", st, err)
	}
	dead := start("sleep 1000000")
	b.must(dead.Signal(b.ctx(), int(unix.SIGKILL)))
	if st, err := dead.Wait(b.ctx()); err != nil || st != killed {
		b.Errorf("after kill: %+v, %v", st, err)
	}
	left := start("sleep 1000000")
	ctx, cancel := context.WithCancel(b.ctx())
	cancel()
	if _, err := left.Wait(ctx); !errors.Is(err, context.Canceled) {
		b.Errorf("wait with an ended context: %v", err)
	}
	b.must(left.Signal(b.ctx(), int(unix.SIGKILL)))
}

package enginetest

import (
	"context"
	"errors"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func testConfig(b bench) {
	e := b.s.Engine(b)
	for what, change := range map[string]func(*engine.Config){
		"no id":        func(c *engine.Config) { c.ID = "" },
		"no directory": func(c *engine.Config) { c.Dir = "" },
	} {
		cfg := b.s.Config(b)
		change(&cfg)
		_, err := e.Boot(b.ctx(), cfg)
		b.is("boot with "+what, err, errdefs.IsInvalidArgument)
		_, err = e.Adopt(b.ctx(), cfg, engine.Process{PID: 1})
		b.is("adopt with "+what, err, errdefs.IsInvalidArgument)
	}
}

func testOrder(b bench) {
	n := b.sandbox()
	c := b.container("exit 0")
	n.must(n.Create(b.ctx(), c))
	b.is("create again", n.Create(b.ctx(), c), errdefs.IsAlreadyExists)
	_, err := n.Wait(b.ctx(), c.ID)
	b.is("wait for one that was not started", err, errdefs.IsNotFound)
	b.must(n.Start(b.ctx(), c))
	b.is("start again", n.Start(b.ctx(), c), errdefs.IsFailedPrecondition)
	n.wait(c)
	b.is("start one that has ended", n.Start(b.ctx(), c), errdefs.IsFailedPrecondition)
	b.must(n.Destroy(b.ctx(), c.ID))
	_, err = n.Wait(b.ctx(), c.ID)
	b.is("wait for one that was destroyed", err, errdefs.IsNotFound)

	c = b.container("exit 0")
	c.Stdio[1] = nil
	b.is("start without stdout", n.Start(b.ctx(), c), errdefs.IsInvalidArgument)
	c.Stdio[1] = c.Stdio[0]
	b.must(n.Create(b.ctx(), c))
	b.must(n.Start(b.ctx(), c)) // nothing was left of the start that failed
	c.ID = newID()
	c.Spec.Process = nil
	b.is("create without a process", n.Create(b.ctx(), c), errdefs.IsInvalidArgument)
}

func testExitStatus(b bench) {
	n := b.sandbox()
	for script, want := range map[string]engine.ExitStatus{
		"exit 0": {}, "exit 3": {Code: 3}, "exit 255": {Code: 255},
	} {
		c := n.start(script)
		for range 2 { // it is kept until the container is destroyed
			if st := n.wait(c); st != want {
				b.Errorf("%q: %+v, want %+v", script, st, want)
			}
		}
	}
}

func testUnknownContainer(b bench) {
	n, id := b.sandbox(), newID()
	_, err := n.Wait(b.ctx(), id)
	b.is("wait", err, errdefs.IsNotFound)
	b.is("signal", n.Signal(b.ctx(), id, int(unix.SIGTERM), false), errdefs.IsNotFound)
	b.is("signal to all", n.Signal(b.ctx(), id, int(unix.SIGKILL), true), errdefs.IsNotFound)
	b.is("update", n.Update(b.ctx(), id, nil), errdefs.IsNotFound)
	_, err = n.Exec(b.ctx(), id, commandOf("true"))
	b.is("exec", err, errdefs.IsNotFound)
	_, err = n.StartExec(b.ctx(), id, commandOf("true"))
	b.is("start a command", err, errdefs.IsNotFound)
	if h, ok := n.Sandbox.(engine.Holder); ok {
		_, err = h.Held(id, "anything")
		b.is("held", err, errdefs.IsNotFound)
		b.must(h.Release(id, "anything"))
	}
	b.must(n.Destroy(b.ctx(), id))
}

// testEndedContainer: between the end and its record the daemon signals and
// executes in what is not there any more. None of it may look like a defect.
func testEndedContainer(b bench) {
	n := b.sandbox()
	c := n.start("exit 4")
	n.wait(c)
	gone := func(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) }
	b.is("signal", n.Signal(b.ctx(), c.ID, int(unix.SIGTERM), false), errdefs.IsNotFound)
	if err := n.Signal(b.ctx(), c.ID, int(unix.SIGKILL), true); err != nil && !errdefs.IsNotFound(err) {
		b.Errorf("signal to all: %v", err)
	}
	_, err := n.Exec(b.ctx(), c.ID, commandOf("true"))
	b.is("exec", err, gone)
	if st := n.wait(c); st.Code != 4 {
		b.Errorf("its status became %+v", st)
	}
	for range 2 {
		b.must(n.Destroy(b.ctx(), c.ID))
	}
}

func testSignalFirst(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	b.must(n.Signal(b.ctx(), c.ID, int(unix.SIGTERM), false))
	if st := n.wait(c); st.Code != 7 {
		b.Errorf("%+v, want what its handler said", st)
	}
	deaf := n.startReady(Stubborn)
	b.must(n.Signal(b.ctx(), deaf.ID, int(unix.SIGTERM), false))
	if st := n.exec(deaf, "exit 0"); st.Code != 0 {
		b.Errorf("exec in one that ignores the signal: %+v", st)
	}
	quits := n.startReady(Polite)
	_, _ = n.Exec(b.ctx(), quits.ID, commandOf(Quit)) // it may go with its container
	if st := n.wait(quits); st.Code != 7 {
		b.Errorf("%+v after a signal from inside", st)
	}
}

func testSignalAll(b bench) {
	n := b.sandbox()
	c := n.startReady(Stubborn)
	cmd, err := n.StartExec(b.ctx(), c.ID, commandOf("sleep 1000000"))
	b.must(err)
	b.must(n.Signal(b.ctx(), c.ID, int(unix.SIGKILL), true))
	if st := n.wait(c); st != killed {
		b.Errorf("%+v, want %+v", st, killed)
	}
	if st, err := cmd.Wait(b.ctx()); err == nil && st.Code == 0 {
		b.Errorf("a command in it ended with %+v", st)
	}
}

func testStats(b bench) {
	n := b.sandbox()
	runs, over := n.startReady(Polite), n.start("exit 0")
	n.wait(over)
	use, err := n.Stats(b.ctx())
	b.must(err)
	if u, ok := use[runs.ID]; !ok || u.Pids == 0 {
		b.Errorf("use of a running container: %+v, %v", u, ok)
	}
	if u, ok := use[over.ID]; ok {
		b.Errorf("use of one that has ended: %+v", u)
	}
}

func testInodes(b bench) {
	n := b.sandbox()
	counter := ability[engine.Counter](n)
	runs, over := n.startReady(Polite), n.start("exit 0")
	n.wait(over)
	counts, err := counter.Inodes(b.ctx(), []string{runs.ID, over.ID, "unknown"})
	b.must(err)
	if _, ok := counts[runs.ID]; !ok || len(counts) != 1 {
		b.Errorf("inodes: %v", counts)
	}
}

func testDescriptors(b bench) {
	n := b.sandbox()
	counter := ability[engine.Counter](n)
	runs, over := n.startReady(Polite), n.start("exit 0")
	n.wait(over)
	counts, err := counter.Descriptors(b.ctx(), []string{runs.ID, over.ID, "unknown"})
	b.must(err)
	if d, ok := counts[runs.ID]; !ok || len(counts) != 1 || d.Open < 3 || d.Sockets != 0 {
		b.Errorf("descriptors: %v", counts)
	}
}

func testContextOfWait(b bench) {
	n := b.sandbox()
	c := n.startReady(Polite)
	ctx, cancel := context.WithCancel(b.ctx())
	cancel()
	if _, err := n.Wait(ctx, c.ID); !errors.Is(err, context.Canceled) {
		b.Errorf("wait with an ended context: %v", err)
	}
	if st := n.exec(c, "exit 0"); st.Code != 0 {
		b.Errorf("the container did not go on: %+v", st)
	}
}

func testPorts(b bench) {
	n := b.sandbox()
	_, err := ability[engine.PortDialer](n).DialPort(b.ctx(), 4321)
	b.is("connect to a port that nobody listens on", err, errdefs.IsFailedPrecondition)
}

func testTerminal(b bench) {
	n := b.sandbox()
	if s, ok := n.Sandbox.(engine.TerminalSignaler); ok {
		plain := n.startReady(Polite)
		b.is("signal to the foreground", s.SignalForeground(b.ctx(), plain.ID, int(unix.SIGINT)), errdefs.IsFailedPrecondition)
	}
	master, slave := b.terminal()
	c := b.container("echo from a terminal; exit 2")
	c.Spec.Process.Terminal = true
	c.Stdio = [3]*os.File{slave}
	n.startThis(c)
	slave.Close()
	if st := n.wait(c); st.Code != 2 {
		b.Errorf("%+v, want 2", st)
	}
	b.prints(master, "from a terminal\r\n")
}

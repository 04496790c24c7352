package enginetest

import (
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// testDeath: whoever waits learns of it, and every later call says the same.
func testDeath(b bench) {
	n := b.sandbox()
	c, over := n.startReady(Polite), n.start("exit 0")
	n.wait(over)
	type end struct {
		status engine.ExitStatus
		err    error
	}
	parked := make(chan end, 1)
	go func() {
		st, err := n.Wait(b.ctx(), c.ID)
		parked <- end{st, err}
	}()
	select {
	case <-n.Done():
		b.Fatal("it ended by itself")
	default:
	}
	for range 2 {
		b.must(n.Kill(b.ctx()))
	}
	<-n.Done()
	for _, what := range []string{"parked", "late"} {
		e := <-parked
		b.is("a "+what+" wait", e.err, errdefs.IsUnavailable)
		if e.status != killed {
			b.Errorf("a %s wait: %+v, want %+v", what, e.status, killed)
		}
		if what == "parked" {
			st, err := n.Wait(b.ctx(), c.ID)
			parked <- end{st, err}
		}
	}
	other := b.container("exit 0")
	b.is("create", n.Create(b.ctx(), other), errdefs.IsUnavailable)
	b.is("start", n.Start(b.ctx(), other), errdefs.IsUnavailable)
	_, err := n.Exec(b.ctx(), c.ID, commandOf("true"))
	b.is("exec", err, errdefs.IsUnavailable)
	b.is("signal", n.Signal(b.ctx(), c.ID, int(unix.SIGTERM), false), errdefs.IsUnavailable)
	b.is("update", n.Update(b.ctx(), c.ID, nil), errdefs.IsUnavailable)
	_, err = n.Stats(b.ctx())
	b.is("stats", err, errdefs.IsUnavailable)
	if counter, ok := n.Sandbox.(engine.Counter); ok {
		_, err = counter.Inodes(b.ctx(), []string{c.ID})
		b.is("inodes", err, errdefs.IsUnavailable)
		_, err = counter.Descriptors(b.ctx(), []string{c.ID})
		b.is("descriptors", err, errdefs.IsUnavailable)
	}
	if s, ok := n.Sandbox.(engine.TerminalSignaler); ok {
		b.is("signal to the foreground", s.SignalForeground(b.ctx(), c.ID, int(unix.SIGINT)), errdefs.IsUnavailable)
	}
	b.is("start of the root", n.StartRoot(b.ctx()), errdefs.IsUnavailable)
	if h, ok := n.Sandbox.(engine.Holder); ok {
		b.must(h.Release(c.ID, "anything"))
	}
	b.must(n.Destroy(b.ctx(), c.ID))
	if s, ok := n.Sandbox.(engine.OOMScorer); ok {
		b.must(s.SetOOMScoreAdj(0))
	}
	_, err = n.engine.Adopt(b.ctx(), n.cfg, n.Process())
	b.is("adopt", err, errdefs.IsNotFound)
}

func testAdopt(b bench) {
	old := b.sandbox()
	runs, over := old.startReady(Polite), old.start("exit 12")
	old.wait(over)
	n := old.adopt()
	if n.Process() != old.Process() {
		b.Errorf("process %+v, want %+v", n.Process(), old.Process())
	}
	if st := n.wait(over); st.Code != 12 {
		b.Errorf("one that ended before: %+v", st)
	}
	if st := n.exec(runs, "exit 5"); st.Code != 5 {
		b.Errorf("exec: %+v", st)
	}
	if st := n.wait(n.start("exit 2")); st.Code != 2 {
		b.Errorf("a new container: %+v", st)
	}
	b.must(n.Signal(b.ctx(), runs.ID, int(unix.SIGTERM), false))
	if st := n.wait(runs); st.Code != 7 {
		b.Errorf("one that ran on: %+v", st)
	}
	b.must(n.Kill(b.ctx()))
	<-old.Done()
}

func testAdoptWrongProcess(b bench) {
	n, other := b.sandbox(), b.booted()
	good := n.Process()
	for what, p := range map[string]engine.Process{
		"a reused pid":          {PID: good.PID, StartTime: good.StartTime - 1},
		"another sandbox":       other.Process(),
		"a pid of no process":   {PID: 1<<22 - 1, StartTime: 1},
		"a process of the host": {PID: 1},
	} {
		_, err := n.engine.Adopt(b.ctx(), n.cfg, p)
		b.is("adopt "+what, err, errdefs.IsNotFound)
	}
}

// testStartAfterAdopt: a container that was created and not started is started by
// the next daemon, once.
func testStartAfterAdopt(b bench) {
	old := b.sandbox()
	c := b.container("exit 3")
	b.must(old.Create(b.ctx(), c))
	n := old.adopt()
	b.must(n.Start(b.ctx(), c))
	if st := n.wait(c); st.Code != 3 {
		b.Errorf("%+v, want 3", st)
	}
	b.is("start again, as a third daemon", n.adopt().Start(b.ctx(), c), errdefs.IsFailedPrecondition)
}

// testRecover: the next daemon finds out what became of a start that was cut off.
func testRecover(b bench) {
	old := b.sandbox()
	created, runs, over, gone := b.container("exit 3"), old.startReady(Polite), old.start("exit 4"), old.start("exit 5")
	b.must(old.Create(b.ctx(), created))
	old.wait(over)
	b.must(old.Destroy(b.ctx(), gone.ID))
	for _, n := range []node{old, old.adopt()} {
		for what, want := range map[string]bool{created.ID: false, runs.ID: true, over.ID: true, gone.ID: false, newID(): false} {
			if got, err := n.Recover(b.ctx(), engine.Container{ID: what, Spec: created.Spec}); err != nil || got != want {
				b.Errorf("started: %v, %v, want %v", got, err, want)
			}
		}
	}
	if st := old.wait(over); st.Code != 4 {
		b.Errorf("the status became %+v", st)
	}
	b.must(old.Kill(b.ctx()))
	_, err := old.Recover(b.ctx(), engine.Container{ID: runs.ID, Spec: runs.Spec})
	b.is("ask a dead sandbox", err, errdefs.IsUnavailable)
}

func testReap(b bench) {
	n, neighbour := b.sandbox(), b.sandbox()
	n.startReady(Polite)
	for range 2 {
		b.must(b.s.Engine(b).Reap(b.ctx(), n.cfg.ID))
	}
	<-n.Done()
	select {
	case <-neighbour.Done():
		b.Error("the neighbour went, too")
	default:
	}
	b.must(n.engine.Reap(b.ctx(), newID()))
}

// testFind: what runs is found by where it keeps its files, and can be ended.
func testFind(b bench) {
	n, neighbour := b.sandbox(), b.sandbox()
	n.startReady(Polite)
	if found, err := n.engine.Find(b.TempDir(), nil); err != nil || len(found) > 0 {
		b.Errorf("found in an empty directory: %v, %v", found, err)
	}
	itself := false
	for _, f := range n.found() {
		itself = itself || f.Process == n.Process() && f.Role == "sandbox"
		for range 2 {
			b.must(f.Kill(b.ctx()))
		}
	}
	if !itself {
		b.Errorf("%+v was not found", n.Process())
	}
	<-n.Done()
	select {
	case <-neighbour.Done():
		b.Error("the neighbour went, too")
	default:
	}
	if found := n.found(); len(found) > 0 {
		b.Errorf("found afterwards: %+v", found)
	}
}

// found are the processes of this sandbox.
func (n node) found() []engine.Found {
	n.Helper()
	all, err := n.engine.Find(filepath.Dir(n.cfg.Dir), nil)
	n.must(err)
	return slices.DeleteFunc(all, func(f engine.Found) bool { return f.Sandbox != n.cfg.ID })
}

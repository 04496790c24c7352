package gvisor

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// adopt takes a sandbox over with another engine, as another daemon would.
func (p *pod) adopt() *pod {
	p.t.Helper()
	e := newTestEngine(p.t)
	s, err := e.Adopt(testContext(p.t), p.cfg, p.Process())
	if err != nil {
		p.t.Fatal(err)
	}
	return &pod{Sandbox: s.(*Sandbox), t: p.t, eng: e, ns: p.ns}
}

func TestAdopt(t *testing.T) {
	old := startPod(t)
	root := newRootfs(t)
	c := old.start(shell(root, "trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done"))
	gone := old.start(shell(root, "exit 12"))
	c.waitFor(t, "ready")
	if _, err := old.Wait(testContext(t), gone.ID); err != nil {
		t.Fatal(err)
	}
	p := old.adopt()
	ctx := testContext(t)
	if st, err := p.Wait(ctx, gone.ID); err != nil || st.Code != 12 {
		t.Errorf("container that ended before: %+v, %v", st, err)
	}
	if out, _, err := p.sh(c.ID, "echo hello"); err != nil || out != "hello\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
	if out, code := p.run(shell(root, "echo new; exit 2")); out != "new\n" || code != 2 {
		t.Errorf("new container: %q, %d", out, code)
	}
	if err := p.Signal(ctx, c.ID, int(unix.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(ctx, c.ID); err != nil || st.Code != 8 {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := p.Destroy(ctx, c.ID); err != nil {
		t.Error(err)
	}
	if err := p.Kill(ctx); err != nil {
		t.Error(err)
	}
	<-old.Done()
}

func TestStatsAfterAdopt(t *testing.T) {
	old := startPod(t)
	c := old.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	p := old.adopt()
	ctx, cancel := context.WithCancel(context.Background())
	parked := make(chan struct{})
	go func() { defer close(parked); _, _ = p.Wait(ctx, c.ID) }()
	eventually(t, func() error { // the daemon parks a Wait for each container it knows of
		stats, err := p.Stats(ctx)
		if err == nil && stats[c.ID].Pids == 0 {
			err = os.ErrNotExist
		}
		return err
	})
	cancel()
	<-parked
}

// A container that an earlier daemon created is created anew: its gofer went with
// that daemon. That is so whether the sandbox knows it already or not.
func TestStartAfterAdoptCreatesAnew(t *testing.T) {
	for name, known := range map[string]bool{"unknown to the sandbox": false, "known to the sandbox": true} {
		t.Run(name, func(t *testing.T) {
			old := startPod(t)
			c, w := newContainer(t, shell(newRootfs(t), "echo started; exit 3"))
			ctx := testContext(t)
			if err := old.Create(ctx, c.Container); err != nil {
				t.Fatal(err)
			}
			if known {
				if err := old.control.call(ctx, methodCreate, createArgs{CID: c.ID}, nil); err != nil {
					t.Fatal(err)
				}
			}
			p := old.adopt()
			if err := p.Start(ctx, c.Container); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if st, err := p.Wait(ctx, c.ID); err != nil || st.Code != 3 {
				t.Errorf("status %+v, %v", st, err)
			}
			c.waitFor(t, "started\n")
			// What already ran is not started again.
			c.Stdio[1], c.Stdio[2] = c.Stdio[0], c.Stdio[0]
			if err := old.adopt().Start(ctx, c.Container); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("start of one that ran: %v, want FailedPrecondition", err)
			}
		})
	}
}

func TestAdoptRefusesTheWrongProcess(t *testing.T) {
	p := startPod(t)
	other := bootPod(t, p.eng)
	self, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	good := p.Process()
	for name, id := range map[string]engine.Process{
		"pid of this test":  {PID: os.Getpid(), StartTime: self},
		"reused pid":        {PID: good.PID, StartTime: good.StartTime - 1},
		"another sandbox":   other.Process(),
		"a pid of nothing":  {PID: 1 << 22, StartTime: 1},
		"a gofer's or less": {PID: 1, StartTime: 0},
	} {
		if _, err := p.eng.Adopt(testContext(t), p.cfg, id); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, want NotFound", name, err)
		}
	}
}

func TestReap(t *testing.T) {
	p := startPod(t)
	p.start(shell(newRootfs(t), "sleep 1000"))
	neighbor := bootPod(t, p.eng)
	e := newTestEngine(t)
	for range 2 { // idempotent
		if err := e.Reap(testContext(t), p.cfg.ID); err != nil {
			t.Fatal(err)
		}
	}
	<-p.Done()
	eventually(t, func() error {
		if n := p.processesOfSandbox(); n != 0 {
			return os.ErrExist
		}
		return nil
	})
	if n := neighbor.processesOfSandbox(); n != 1 {
		t.Errorf("%d processes of the neighbor, want 1", n)
	}
}

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestExec(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	out, st, err := p.sh(c.ID, "id -u; grep CapEff /proc/self/status; exit 9")
	if err != nil || st.Code != 9 {
		t.Errorf("status %+v, %v", st, err)
	}
	if !strings.Contains(out, "0\n") || !strings.Contains(out, "CapEff:\t0000000000000000") {
		t.Errorf("exec without capabilities printed %q", out)
	}
	_, st, err = p.sh(c.ID, "kill -TERM $$")
	if err != nil || st != (engine.ExitStatus{Code: 143, Signal: 15}) {
		t.Errorf("status %+v, %v; want signal 15", st, err)
	}
	_, err = p.Exec(testContext(t), c.ID, engine.Exec{Process: &specs.Process{Args: []string{"no-such-program"}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("missing program: %v, want InvalidArgument", err)
	}
	if err := p.Signal(testContext(t), c.ID, 9, false); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.sh(c.ID, "true"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a container that has ended: %v, want FailedPrecondition", err)
	}
}

// TestExecMeetsTheEnd of its container, at whatever point.
func TestExecMeetsTheEnd(t *testing.T) {
	p := startPod(t)
	for range 30 {
		spec := shell(newRootfs(t), "echo ready; sleep 1000")
		spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}}
		c := p.start(spec)
		c.waitFor(t, "ready")
		killed := make(chan error, 1)
		go func() { killed <- p.Signal(testContext(t), c.ID, 9, false) }()
		var err error
		for err == nil {
			_, _, err = p.sh(c.ID, "true")
		}
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%v, want FailedPrecondition", err)
		}
		if err := <-killed; err != nil {
			t.Error(err)
		}
	}
}

// An exec whose context ends leaves nothing of its tree, in whatever sessions and
// groups, and touches nothing else, in either kind of pid namespace.
func TestExecIsKilledAsATree(t *testing.T) {
	for name, namespaces := range map[string][]specs.LinuxNamespace{
		"own":    {{Type: specs.PIDNamespace}},
		"shared": {{Type: specs.PIDNamespace, Path: "pod"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t)
			spec := shell(newRootfs(t), "sleep 5000 & echo ready; wait")
			spec.Linux.Namespaces = namespaces
			c := p.start(spec)
			c.waitFor(t, "ready")
			// Another exec, with pids that may be taken for those of the first.
			other := make(chan error, 1)
			go func() {
				_, st, err := p.sh(c.ID, "sleep 5001; exit 3")
				if err == nil {
					err = fmt.Errorf("ended with %+v", st)
				}
				other <- err
			}()
			running := func(n string) bool {
				out, _, err := p.sh(c.ID, "ps")
				if err != nil {
					t.Fatal(err)
				}
				return strings.Contains(out, "sleep "+n)
			}
			eventually(t, func() error {
				if !running("5001") {
					return errors.New("other exec has not begun")
				}
				return nil
			})
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			killed := make(chan error, 1)
			go func() {
				_, _, err := p.execContext(ctx, c.ID,
					"sleep 6001 & (sleep 6002 & sleep 6003) & setsid sh -c 'sleep 6004 & sleep 6005' & sleep 6006")
				killed <- err
			}()
			tree := []string{"6001", "6002", "6003", "6004", "6005", "6006"}
			eventually(t, func() error {
				for _, n := range tree {
					if !running(n) {
						return fmt.Errorf("sleep %s has not begun", n)
					}
				}
				return nil
			})
			cancel()
			if err := <-killed; !errors.Is(err, context.Canceled) {
				t.Errorf("killed exec: %v, want Canceled", err)
			}
			for _, n := range tree {
				if running(n) {
					t.Errorf("sleep %s is left", n)
				}
			}
			for _, n := range []string{"5000", "5001"} {
				if !running(n) {
					t.Errorf("sleep %s is gone", n)
				}
			}
			select {
			case err := <-other:
				t.Errorf("other exec: %v", err)
			default:
			}
		})
	}
}

// What is killed when an exec has ended before its pid was found is nothing, and
// not all that has no parent.
func TestKillTreeOfAnUnknownRoot(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	e := &startedExec{pid: 999, found: make(chan struct{})}
	close(e.found)
	if err := p.processes.killTree(testContext(t), c.ID, e); err != nil {
		t.Error(err)
	}
	if out, _, err := p.sh(c.ID, "ps"); err != nil || !strings.Contains(out, "sleep 1000") {
		t.Errorf("container is gone: %q, %v", out, err)
	}
}

// An exec whose context ends while the sandbox is stopped is killed when it goes
// on; its caller is not kept until then.
func TestExecIsKilledAfterAHang(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := p.Exec(ctx, c.ID, engine.Exec{Process: &specs.Process{Args: []string{"/bin/sleep", "7002"}, Cwd: "/"}})
		ended <- err
	}()
	running := func(want bool) {
		t.Helper()
		eventually(t, func() error {
			out, _, err := p.sh(c.ID, "ps")
			if err == nil && strings.Contains(out, "sleep 7002") != want {
				err = fmt.Errorf("want the exec to run: %v; there is\n%s", want, out)
			}
			return err
		})
	}
	running(true)
	if err := p.sentry.proc.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	if err := p.sentry.proc.signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	running(false)
}

// An exec that the sandbox begins only after its caller has gone is killed.
func TestExecThatStartsLateIsKilled(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	if _, _, err := p.sh(c.ID, "true"); err != nil { // so that no list is asked for first
		t.Fatal(err)
	}
	if err := p.sentry.proc.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Exec(ctx, c.ID, engine.Exec{Process: &specs.Process{Args: []string{"/bin/sleep", "7001"}, Cwd: "/"}})
	if !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("%v, want DeadlineExceeded", err)
	}
	if err := p.sentry.proc.signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// The next exec begins after the late one has.
	eventually(t, func() error {
		out, _, err := p.sh(c.ID, "ps")
		if err == nil && strings.Contains(out, "sleep 7001") {
			err = fmt.Errorf("late exec is left:\n%s", out)
		}
		return err
	})
}

func TestExecAtTheSameTime(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			out, st, err := p.sh(c.ID, fmt.Sprintf("echo %d; exit %d", i, i))
			if err != nil || st.Code != i || out != fmt.Sprintf("%d\n", i) {
				t.Errorf("exec %d: %q, %+v, %v", i, out, st, err)
			}
		})
	}
	wg.Wait()
}

func TestNewGroups(t *testing.T) {
	ps := []guestProcess{
		{PID: 1, PGID: 1},             // first process of the container
		{PID: 2, PPID: 1, PGID: 1},    // its child
		{PID: 9, PGID: 9},             // the exec
		{PID: 10, PPID: 9, PGID: 9},   //
		{PID: 8, PPID: 12, PGID: 12},  // a child with a lower pid than its parent
		{PID: 12, PPID: 9, PGID: 12},  //
		{PID: 20, PPID: 1, PGID: 12},  // an orphan, in a group of the tree
		{PID: 21, PPID: 20, PGID: 21}, // and its child
		{PID: 30, PGID: 30},           // another exec
		{PID: 31, PPID: 30, PGID: 30}, //
	}
	first := newGroups(ps, 9, nil)
	slices.Sort(first)
	if !slices.Equal(first, []int32{9, 12}) {
		t.Errorf("groups %v, want 9 and 12", first)
	}
	if second := newGroups(ps, 9, map[int32]bool{9: true, 12: true}); !slices.Equal(second, []int32{21}) {
		t.Errorf("groups behind those: %v, want 21", second)
	}
	if roots := parentless(ps); len(roots) != 3 || !roots[1] || !roots[9] || !roots[30] {
		t.Errorf("processes without a parent are %v, want 1, 9 and 30", roots)
	}
}

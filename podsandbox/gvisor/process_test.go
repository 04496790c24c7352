package gvisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// thisProcess is the test, as a process of a sandbox.
func thisProcess(t testing.TB) *process {
	t.Helper()
	return openedProcess(t, os.Getpid())
}

func openedProcess(t testing.TB, pid int) *process {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(engine.Process{PID: pid, StartTime: start})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.drop)
	return p
}

// reusedPID returns a process that has ended, which nobody has noticed yet, and another
// one that has its pid since.
func reusedPID(t testing.TB) (*process, *exec.Cmd) {
	t.Helper()
	first := exec.Command("sleep", "1000")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	pid := first.Process.Pid
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{pid: pid, start: start, pidfd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}
	t.Cleanup(func() { p.pidfd.Close() })
	_ = first.Process.Kill()
	_ = first.Wait()
	time.Sleep(20 * time.Millisecond) // start times count in hundredths of a second
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skipf("pids cannot be chosen: %v", err)
		}
		next := exec.Command("sleep", "1000")
		if err := next.Start(); err != nil {
			t.Fatal(err)
		}
		stop := func() { _ = next.Process.Kill(); _ = next.Wait() }
		if next.Process.Pid == pid {
			t.Cleanup(stop)
			return p, next
		}
		stop()
	}
	t.Skip("the pid is not given out again")
	return nil, nil
}

// What is done to a process that has ended is not done to another one with its pid.
func TestProcessIsNotAnotherWithItsPID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	p, other := reusedPID(t)
	score := fmt.Sprintf("/proc/%d/oom_score_adj", other.Process.Pid)
	before, err := os.ReadFile(score)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sandbox{sentry: &sentry{proc: p}}
	for name, call := range map[string]func() error{
		"procDir":       func() error { _, err := p.procDir(); return err },
		"takeFD":        func() error { _, err := p.takeFD(0); return err },
		"inMountNS":     func() error { return inMountNS(p, func() error { return nil }) },
		"adoptFDStore":  func() error { _, err := adoptFDStore(p); return err },
		"adoptPanicLog": func() error { _, err := adoptPanicLog(p); return err },
		"openProcess":   func() error { _, err := openProcess(p.identity()); return err },
	} {
		if err := call(); !isLost(err) {
			t.Errorf("%s: %v, want that it has ended", name, err)
		}
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Errorf("signal: %v", err)
	}
	if err := s.SetOOMScoreAdj(1000); err != nil {
		t.Errorf("SetOOMScoreAdj: %v", err)
	}
	if after, err := os.ReadFile(score); err != nil || string(after) != string(before) {
		t.Errorf("the other's score was %q and is %q, %v", before, after, err)
	}
	if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", other.Process.Pid)); err != nil || strings.Contains(string(st), ") Z ") {
		t.Errorf("the other has been ended: %q, %v", st, err)
	}
}

// A gofer gets a pidfd of the Sentry that it serves, whoever has its pid by then.
func TestFollowOfAReusedPID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	sentry, _ := reusedPID(t)
	ours, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	g := &gofer{exit: ours}
	g.follow(sentry)
	ours.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	err = control(theirs, func(fd int) error {
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, 0)
		oob = oob[:n]
		return err
	})
	messages, perr := unix.ParseSocketControlMessage(oob)
	if err := errors.Join(err, perr); err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	defer closeFDs(fds)
	if ended, err := isReadable(uintptr(fds[0])); err != nil || !ended {
		t.Errorf("it follows somebody who lives, %v", err)
	}
}

// The files of a directory of /proc stay those of one process.
func TestProcDirOfAnEndedProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d, err := openProcDir(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.start(); err != nil {
		t.Error(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := d.start(); !isGone(err) {
		t.Errorf("start: %v", err)
	}
	if _, err := d.executable(); !isGone(err) {
		t.Errorf("executable: %v", err)
	}
}

// A child that cannot be named is ended: no record would know of it.
func TestForkLeavesNoChildWithoutAStartTime(t *testing.T) {
	e := newTestEngine(t)
	var child int
	prepareChild = func(pid int, _ *int) (uint64, error) { child = pid; return 0, unix.EMFILE }
	defer func() { prepareChild = setUpChild }()
	before := descriptors(t)
	b := spawnConfig{program: brokenProgram(t, idleProgram), argv0: "idle", id: "x"}
	if _, err := b.fork(newDonation(e.null)); !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v, want EMFILE", err)
	}
	if child == 0 {
		t.Fatal("nothing was forked")
	}
	if err := unix.Kill(child, 0); err != unix.ESRCH {
		_ = unix.Kill(child, unix.SIGKILL)
		t.Errorf("process %d is left: %v", child, err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A process that is not watched any more costs neither a descriptor nor a goroutine.
func TestProcessDrop(t *testing.T) {
	before, routines := descriptors(t), runtime.NumGoroutine()
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		p, err := openProcess(engine.Process{PID: os.Getpid(), StartTime: start})
		if err != nil {
			t.Fatal(err)
		}
		p.drop()
	}
	eventually(t, func() error {
		if after, now := descriptors(t), runtime.NumGoroutine(); after > before || now > routines {
			return fmt.Errorf("%d descriptors and %d goroutines before, %d and %d after", before, routines, after, now)
		}
		return nil
	})
}

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// rename overwrites the command line of a process, as it could itself.
func rename(t *testing.T, pid int, argv ...string) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	start, err1 := strconv.ParseInt(fields[45], 10, 64) // field 48, arg_start
	end, err2 := strconv.ParseInt(fields[46], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(argv, "\x00")
	if int64(len(text)) >= end-start {
		t.Fatalf("%q is too long", argv)
	}
	// Zeros before the last word would be words of their own, so it comes last.
	if last := strings.LastIndexByte(text, 0); last >= 0 {
		text = text[:last] + "\x00" + strings.Repeat("/", int(end-start)-len(text)-2) + text[last:]
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if _, err := memory.WriteAt(append([]byte(text), make([]byte, int(end-start)-len(text))...), start); err != nil {
		t.Fatal(err)
	}
	d, err := openProcDir(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if got, err := d.args(); err != nil || got[0] != argv[0] || got[len(got)-1] != argv[len(argv)-1] && len(argv) > 1 {
		t.Fatalf("it calls itself %q, want %q", got, argv)
	}
}

// A sandbox is adopted whatever it says of itself.
func TestAdoptTrustsNoCommandLine(t *testing.T) {
	old := startPod(t)
	c := old.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	rename(t, old.Process().PID, "nobody")
	p := old.adopt()
	if out, _, err := p.sh(c.ID, "echo hello"); err != nil || out != "hello\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
}

// podIn boots a pod with an id and a cgroup as the daemon makes them, and starts a
// container in it.
func podIn(t *testing.T, e *Engine, groups []string, id string) (p *pod, gofer int) {
	t.Helper()
	var paths []string
	for _, g := range groups {
		path := filepath.Join(g, id)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			eventually(t, func() error {
				err := unix.Rmdir(path)
				if errors.Is(err, unix.ENOENT) {
					return nil
				}
				return err
			})
		})
		paths = append(paths, path)
	}
	p = bootPod(t, e, func(c *engine.Config) { c.ID, c.CgroupPaths = id, paths })
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	return p, p.containers.get(c.ID).gofer.proc.pid
}

// The processes of a sandbox that call themselves another one's are still found,
// and ended, as what they are.
func TestReapOfASandboxThatTakesTheNameOfAnother(t *testing.T) {
	e := newTestEngine(t)
	groups := newCgroups(t)
	if len(groups) == 0 {
		t.Skip("no cgroup hierarchy of version 1")
	}
	own, others := strings.Repeat("a", 64), strings.Repeat("b", 64)
	p, gofer := podIn(t, e, groups, own)
	neighbor, _ := podIn(t, e, groups, others)
	for _, pid := range []int{p.Process().PID, gofer} {
		rename(t, pid, bootName, others)
		// It makes a cgroup below its own, with the name of another's, too.
		for _, g := range p.cfg.CgroupPaths {
			below := filepath.Join(g, others)
			if err := os.Mkdir(below, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Rmdir(below) })
		}
	}

	found, err := e.Find(filepath.Dir(p.cfg.Dir), map[string]bool{own: true})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range found {
		if f.Sandbox == own {
			pids = append(pids, f.PID)
		}
	}
	if len(pids) != 2 {
		t.Errorf("found are %v, want %d and %d", found, p.Process().PID, gofer)
	}

	if err := e.Reap(testContext(t), others); err != nil {
		t.Fatal(err)
	}
	<-neighbor.Done()
	if p.sentry.proc.ended() {
		t.Error("it was ended in the other one's place")
	}
	if err := e.Reap(testContext(t), own); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	eventually(t, func() error {
		if unix.Kill(gofer, 0) == nil {
			return errors.New("its gofer is left")
		}
		return nil
	})
	if err := p.Kill(context.Background()); err != nil {
		t.Error(err)
	}
}

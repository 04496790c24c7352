package gvisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestSandboxThatIsDead(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	c.waitFor(t, "ready")
	type result struct {
		st  engine.ExitStatus
		err error
	}
	parked := make(chan result, 1)
	go func() {
		st, err := p.Wait(context.Background(), c.ID)
		parked <- result{st, err}
	}()
	exec := make(chan result, 1)
	go func() {
		_, st, err := p.sh(c.ID, "echo; sleep 1000")
		exec <- result{st, err}
	}()
	eventually(t, func() error {
		if out, _, _ := p.sh(c.ID, "ps"); strings.Count(out, "sleep 1000") < 2 {
			return errors.New("exec has not begun")
		}
		return nil
	})
	if err := unix.Kill(p.Process().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want := engine.ExitStatus{Code: 137, Signal: 9}
	for name, ch := range map[string]chan result{"Wait": parked, "Exec": exec} {
		if r := <-ch; r.st != want || !errdefs.IsUnavailable(r.err) {
			t.Errorf("%s: %+v, %v; want %+v and Unavailable", name, r.st, r.err, want)
		}
	}
	<-p.Done()
	ctx := testContext(t)
	if st, err := p.Wait(ctx, c.ID); st != want || !errdefs.IsUnavailable(err) {
		t.Errorf("Wait afterwards: %+v, %v", st, err)
	}
	if err := p.Signal(ctx, c.ID, 15, false); !errdefs.IsUnavailable(err) {
		t.Errorf("Signal: %v, want Unavailable", err)
	}
	if _, err := p.Stats(ctx); !errdefs.IsUnavailable(err) {
		t.Errorf("Stats: %v, want Unavailable", err)
	}
	n, _ := newContainer(t, shell(newRootfs(t), "true"))
	if err := p.Create(ctx, n.Container); !errdefs.IsUnavailable(err) {
		t.Errorf("Create: %v, want Unavailable", err)
	}
	if err := p.Destroy(ctx, c.ID); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if err := p.Kill(ctx); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if n := p.processesOfSandbox(); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestSandboxThatHangs(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "echo ready; sleep 1000"))
	created, _ := newContainer(t, shell(newRootfs(t), "true"))
	if err := p.Create(testContext(t), created.Container); err != nil {
		t.Fatal(err)
	}
	if err := p.sentry.proc.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(context.Context) error{
		"Signal": func(ctx context.Context) error { return p.Signal(ctx, c.ID, 15, true) },
		"Stats":  func(ctx context.Context) error { _, err := p.Stats(ctx); return err },
		"Wait":   func(ctx context.Context) error { _, err := p.Wait(ctx, c.ID); return err },
		"Start":  func(ctx context.Context) error { return p.Start(ctx, created.Container) },
		// Without pipes: what was sent to a hung sandbox stays open in its socket.
		"Exec": func(ctx context.Context) error {
			_, err := p.Exec(ctx, c.ID, engine.Exec{Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}})
			return err
		},
		"Destroy": func(ctx context.Context) error { return p.Destroy(ctx, c.ID) },
	}
	// Known by its process, it is adopted all the same; it may only be slow.
	adoptCtx, cancelAdopt := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancelAdopt()
	if _, err := p.eng.Adopt(adoptCtx, p.cfg, p.Process()); err != nil {
		t.Errorf("Adopt: %v", err)
	}
	// Often enough to fill the backlog of the socket.
	for range 20 {
		for name, call := range calls {
			if name == "Start" {
				continue // undoing it takes cleanupTimeout; once, below
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			if err := call(ctx); !errdefs.IsDeadlineExceeded(err) {
				t.Errorf("%s: %v, want DeadlineExceeded", name, err)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := calls["Start"](ctx); !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("Start: %v, want DeadlineExceeded", err)
	}
	if err := p.Kill(testContext(t)); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if n := p.processesOfSandbox(); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestBootSaysWhyItFailed(t *testing.T) {
	e := newTestEngine(t)
	cfg := podConfig(t, newTestNetNS(t))
	cfg.Hostname = strings.Repeat("x", 10)
	// A root image that is none.
	e.rootImage.Close()
	var err error
	if e.rootImage, err = memoryFile("bad", []byte("no image")); err != nil {
		t.Fatal(err)
	}
	s, err := e.Boot(testContext(t), cfg)
	if err == nil { // the image is looked at when the root container starts
		t.Cleanup(func() { _ = s.Kill(context.Background()) })
		err = s.StartRoot(testContext(t))
	}
	if err == nil || !strings.Contains(err.Error(), "image") {
		t.Errorf("%v, want an error that names the image", err)
	}
}

func TestBootOfABrokenProgram(t *testing.T) {
	e := newTestEngine(t)
	e.program = brokenProgram(t, failingProgram)
	cfg := podConfig(t, newTestNetNS(t))
	_, err := e.Boot(testContext(t), cfg)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "status 3") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("%v, want Unavailable with the status and the panic log", err)
	}
	if b, err := os.ReadFile(filepath.Join(cfg.Dir, panicLogName)); string(b) != "the reason\n" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestBootIsBounded(t *testing.T) {
	e := newTestEngine(t)
	e.program = brokenProgram(t, idleProgram)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := e.Boot(ctx, podConfig(t, newTestNetNS(t))); !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("%v, want DeadlineExceeded", err)
	}
}

// A pod with all that it can have leaves no process, descriptor, goroutine's
// thread in a cgroup, or file outside of its directory.
func TestSandboxLeavesNothing(t *testing.T) {
	e := newTestEngine(t)
	root := newRootfs(t)
	cgroups := newCgroups(t)
	round := func() {
		p := bootPod(t, e, func(c *engine.Config) { c.CgroupPaths = cgroups })
		ctx := testContext(t)
		if err := p.StartRoot(ctx); err != nil {
			t.Fatal(err)
		}
		spec := shell(root, "echo ready; sleep 1000")
		spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}})
		kept := p.start(spec)
		kept.waitFor(t, "ready")
		if _, _, err := p.sh(kept.ID, "true"); err != nil {
			t.Fatal(err)
		}
		p.run(shell(root, "true"))
		created, w := newContainer(t, spec)
		if err := p.Create(ctx, created.Container); err != nil {
			t.Fatal(err)
		}
		for _, f := range created.Stdio {
			f.Close()
		}
		for _, f := range kept.Stdio {
			f.Close()
		}
		w.Close()
		if err := p.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		<-kept.eof
		<-created.eof
		if n := p.processesOfSandbox(); n != 0 {
			t.Errorf("%d processes are left", n)
		}
		for _, g := range cgroups {
			b, err := os.ReadFile(filepath.Join(g, "tasks"))
			if err != nil || len(b) > 0 {
				t.Errorf("threads in %s: %q, %v", g, b, err)
			}
		}
	}
	round()
	before := descriptors(t)
	for range 3 {
		round()
	}
	eventually(t, func() error {
		// The namespaces of the test itself are closed when it ends: two a round.
		if after := descriptors(t); after > before+6 {
			return errors.New("descriptors: " + strconv.Itoa(before) + " before, " + strconv.Itoa(after) + " after")
		}
		return nil
	})
}

// A descriptor that the daemon has inherited does not go on to its sandboxes.
func TestNewMarksInheritedDescriptors(t *testing.T) {
	needSandboxes(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Without close-on-exec, and out of the way of what the Sentry is given.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p := startPod(t)
	p.start(shell(newRootfs(t), "sleep 1000"))
	entries, err := filepath.Glob("/proc/" + strconv.Itoa(p.Process().PID) + "/fd/*")
	if err != nil || len(entries) == 0 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, entry := range entries {
		if link, _ := os.Readlink(entry); strings.HasSuffix(link, "/inherited") {
			t.Errorf("%s of the Sentry is the daemon's %s", filepath.Base(entry), link)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// newCgroups makes one cgroup in each hierarchy of version 1, or skips.
func newCgroups(t *testing.T) []string {
	t.Helper()
	var made []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		parent := filepath.Join("/sys/fs/cgroup", c)
		if _, err := os.Stat(filepath.Join(parent, "tasks")); err != nil {
			continue
		}
		path := filepath.Join(parent, "gvisor-test-"+newID(t))
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Skipf("no cgroup can be made: %v", err)
		}
		t.Cleanup(func() {
			eventually(t, func() error { return unix.Rmdir(path) })
		})
		made = append(made, path)
	}
	return made
}

func TestBootIsBornInItsCgroups(t *testing.T) {
	cgroups := newCgroups(t)
	if len(cgroups) == 0 {
		t.Skip("no cgroup hierarchy of version 1")
	}
	p := startPod(t, func(c *engine.Config) { c.CgroupPaths = cgroups })
	p.start(shell(newRootfs(t), "sleep 1000"))
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range cgroups {
		b, err := os.ReadFile(filepath.Join(g, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		// The Sentry, its stubs and the gofer.
		if pids := strings.Fields(string(b)); len(pids) < 3 || !strings.Contains(string(b), strconv.Itoa(p.Process().PID)) {
			t.Errorf("%s holds %v", g, pids)
		}
		if strings.Contains(string(own), filepath.Base(g)) {
			t.Errorf("the test itself is in %s", g)
		}
	}
}

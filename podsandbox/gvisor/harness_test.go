package gvisor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

const busybox = "/bin/busybox" // Debian's busybox-static

var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// needSandboxes skips where no sandbox can run.
func needSandboxes(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := fs.Stat(embedded, embeddedProgram); err != nil {
		t.Skip("needs the sandbox program: run podsandbox/gvisor/build.sh")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs busybox-static")
	}
}

func newID(t testing.TB) string {
	t.Helper()
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// stateDir is shared by the engines of all tests, so that the program is staged
// once.
var stateDir string

func TestMain(m *testing.M) {
	beABrokenProgram()
	dir, err := os.MkdirTemp("", "gvisor-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stateDir = dir
	_ = os.Chmod(dir, 0o755) // sandboxes with ids of their own run the program
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newTestEngine(t testing.TB) *Engine {
	t.Helper()
	needSandboxes(t)
	e, err := New(Options{StateDir: stateDir, Debug: os.Getenv("SENTRY_DEBUG") != ""})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

type pod struct {
	*Sandbox
	t   testing.TB
	eng *Engine
	ns  *testNetNS
}

func podConfig(t testing.TB, ns *testNetNS) engine.Config {
	id := newID(t)
	dir := filepath.Join(t.TempDir(), id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := engine.Config{ID: id, Dir: dir, Hostname: "pod-host"}
	if ns != nil {
		cfg.NetNS = ns.path
	}
	return cfg
}

// startPod boots a sandbox and starts its root container.
func startPod(t testing.TB, change ...func(*engine.Config)) *pod {
	t.Helper()
	p := bootPod(t, newTestEngine(t), change...)
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

func bootPod(t testing.TB, e *Engine, change ...func(*engine.Config)) *pod {
	t.Helper()
	ns := newTestNetNS(t)
	cfg := podConfig(t, ns)
	for _, c := range change {
		c(&cfg)
	}
	s, err := e.Boot(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{Sandbox: s.(*Sandbox), t: t, eng: e, ns: ns}
	t.Cleanup(func() {
		_ = p.sentry.proc.signal(unix.SIGCONT)
		if err := s.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := e.Reap(context.Background(), cfg.ID); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			if b, err := os.ReadFile(filepath.Join(cfg.Dir, panicLogName)); err == nil && len(b) > 0 {
				t.Logf("panic log:\n%s", b)
			}
		}
	})
	return p
}

// newRootfs builds a root file system around busybox.
func newRootfs(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root", "run"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
		"etc/group":  "root:x:0:\nuser:x:1000:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// shell is a spec as the spec package of the daemon makes them, in short.
func shell(root, script string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script},
			Env:  []string{"PATH=/bin", "HOME=/root"},
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps,
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "pod-shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
	}
}

// running is a started container and what it has printed so far.
type running struct {
	engine.Container
	mu  sync.Mutex
	buf bytes.Buffer // +checklocks:mu
	eof chan struct{}
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// newContainer gives a container a pipe for both its outputs.
func newContainer(t testing.TB, spec *specs.Spec) (*running, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &running{
		Container: engine.Container{ID: newID(t), Spec: spec, Stdio: [3]*os.File{null, w, w}},
		eof:       make(chan struct{}),
	}
	go func() {
		defer close(c.eof)
		_, _ = io.Copy(c, r)
		r.Close()
	}()
	t.Cleanup(func() { null.Close(); w.Close() })
	return c, w
}

func (p *pod) start(spec *specs.Spec) *running {
	p.t.Helper()
	c, w := newContainer(p.t, spec)
	ctx := testContext(p.t)
	if err := p.Create(ctx, c.Container); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Start(ctx, c.Container); err != nil {
		p.t.Fatal(err)
	}
	w.Close()
	return c
}

// run starts a container and returns its output and exit code.
func (p *pod) run(spec *specs.Spec) (string, int) {
	p.t.Helper()
	c := p.start(spec)
	st, err := p.Wait(testContext(p.t), c.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.Destroy(testContext(p.t), c.ID); err != nil {
		p.t.Fatal(err)
	}
	<-c.eof // the sandbox keeps the descriptors until now
	c.Stdio[0].Close()
	return c.String(), st.Code
}

// waitFor waits until the container has printed the text.
func (r *running) waitFor(t testing.TB, text string) {
	t.Helper()
	eventually(t, func() error {
		if s := r.String(); !strings.Contains(s, text) {
			return fmt.Errorf("no %q in the output %q", text, s)
		}
		return nil
	})
}

// eventually repeats a check until it succeeds; it gives up late, so that it
// asserts no time.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sh runs a command in a container and returns its output.
func (p *pod) sh(id, script string) (string, engine.ExitStatus, error) {
	return p.execContext(testContext(p.t), id, script)
}

func (p *pod) execContext(ctx context.Context, id, script string) (string, engine.ExitStatus, error) {
	p.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	var out bytes.Buffer
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(&out, r); r.Close() }()
	st, err := p.Exec(ctx, id, engine.Exec{
		Process: &specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Stdio:   [3]*os.File{nil, w, w},
	})
	w.Close()
	<-copied
	return out.String(), st, err
}

func containerWith(annotations map[string]string) engine.Container {
	return engine.Container{ID: "c", Spec: &specs.Spec{Annotations: annotations}}
}

// processesOfSandbox counts the Sentry and its gofers, by the host's /proc.
func (p *pod) processesOfSandbox() int {
	p.t.Helper()
	programs, err := p.eng.stagedPrograms()
	if err != nil {
		p.t.Fatal(err)
	}
	n := 0
	if err := eachProcess(func(d *procDir) error {
		belongs, err := d.belongsTo(programs, p.cfg.ID)
		if belongs {
			n++
		}
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// startTime is that of a process that does not end meanwhile.
func startTime(pid int) (uint64, error) {
	d, err := openProcDir(pid)
	if err != nil {
		return 0, err
	}
	defer d.close()
	return d.start()
}

// rawFD returns the number of a descriptor of a file that the test keeps open.
func rawFD(f *os.File) (int, error) {
	n := -1
	err := control(f, func(fd int) error { n = fd; return nil })
	return n, err
}

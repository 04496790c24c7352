package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/volumeuser"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func bindMount(destination, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...)}
}

// user is a container that runs a volume user.
func user(t testing.TB, mounts []specs.Mount, actions ...string) *specs.Spec {
	t.Helper()
	dir := t.TempDir()
	if err := volumeuser.Install(dir); err != nil {
		t.Fatal(err)
	}
	spec := shell(newRootfs(t), "")
	spec.Process.Args = append([]string{"/test/" + volumeuser.Name}, actions...)
	spec.Mounts = append(append(spec.Mounts, bindMount("/test", dir, "ro")), mounts...)
	return spec
}

// One kernel, one file system: what two containers of a pod do with a volume that both
// have is as on a machine.
func TestSharedVolume(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	first := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")},
		"listen", "/vol/socket", "flock", "/vol/flock", "fcntl", "/vol/fcntl", "map", "/vol/map", "mkfifo", "/vol/fifo",
		"make", "/vol/ready", "watch", "/vol", "receive", "/vol/fifo",
		"await", "/vol/append", "append", "/vol/append", "make", "/vol/appended", "sleep", ""))
	first.waitFor(t, "watching")
	second := p.start(user(t, []specs.Mount{bindMount("/data", dir, "rw")},
		"dial", "/data/socket", "flock", "/data/flock", "fcntl", "/data/fcntl", "map", "/data/map", "rename", "/data/ready",
		"make", "/data/new", "send", "/data/fifo", "append", "/data/append", "await", "/data/appended", "lines", "/data/append", "sleep", ""))
	second.waitFor(t, "lines /data/append: ")
	for _, want := range []string{
		"dial /data/socket: hello", "flock /data/flock: resource temporarily unavailable", "fcntl /data/fcntl: resource temporarily unavailable",
		"map /data/map: 2", "rename /data/ready: moved", "lines /data/append: 4000",
	} {
		if !strings.Contains(second.String(), want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, second)
		}
	}
	first.waitFor(t, "watch /vol: new\n")
	first.waitFor(t, "receive /vol/fifo: through the pipe\n")
	if _, err := os.Stat(filepath.Join(dir, "ready.moved")); err != nil {
		t.Errorf("the host: %v", err)
	}
}

// A directory of a volume is the same for who has the volume, and a third container for
// both; what one may only read it cannot write.
func TestSharedVolumeDirectory(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	inner := filepath.Join(dir, "a/b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	subpath := t.TempDir() // as the kubelet makes them: a mount elsewhere
	if err := unix.Mount(inner, subpath, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(subpath, unix.MNT_DETACH) })
	first := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "listen", "/vol/a/b/socket", "flock", "/vol/a/b/flock", "sleep", ""))
	first.waitFor(t, "flock /vol/a/b/flock: held")
	second := p.start(user(t, []specs.Mount{bindMount("/sub", subpath, "rw", "nosuid")},
		"dial", "/sub/socket", "flock", "/sub/flock", "listen", "/sub/own", "sleep", ""))
	second.waitFor(t, "listen /sub/own: bound")
	third := p.start(user(t, []specs.Mount{bindMount("/sub", subpath, "ro", "noexec")},
		"dial", "/sub/own", "make", "/sub/x", "filesystem", "/sub"))
	third.waitFor(t, "filesystem")
	for want, c := range map[string]*running{
		"dial /sub/socket: hello": second, "flock /sub/flock: resource temporarily unavailable": second,
		"dial /sub/own: hello": third, "make /sub/x: open /sub/x: read-only file system": third, "flags 0x9": third,
	} {
		if !strings.Contains(c.String(), want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, c)
		}
	}
}

// What lies on a volume in a container stays there when the volume is joined.
func TestSharedVolumeKeepsMountsInIt(t *testing.T) {
	p := startPod(t)
	dir, other, deep := t.TempDir(), t.TempDir(), t.TempDir()
	for _, d := range []string{dir + "/in/deep", other + "/deep"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, d := range map[string]string{"dir": dir, "other": other, "deep": deep} {
		if err := os.WriteFile(filepath.Join(d, name), []byte("it is "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "flock", "/vol/flock", "sleep", ""))
	first.waitFor(t, "held")
	mounts := []specs.Mount{bindMount("/vol", dir, "rw"), bindMount("/vol/in", other, "ro"), bindMount("/vol/in/deep", deep, "rw")}
	out, code := p.run(user(t, mounts, "flock", "/vol/flock", "read", "/vol/dir", "read", "/vol/in/other", "read", "/vol/in/deep/deep", "make", "/vol/in/x"))
	for _, want := range []string{"flock /vol/flock: resource temporarily", "it is dir", "it is other", "it is deep", "read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output (exit code %d):\n%s", want, code, out)
		}
	}
}

// What a container has joined stays when the container that had it first ends, and is
// joined by its successor.
func TestSharedVolumeOutlivesItsFirstContainer(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	mounts := []specs.Mount{bindMount("/vol", dir, "rw")}
	first := p.start(user(t, mounts, "make", "/vol/x", "sleep", ""))
	first.waitFor(t, "made")
	second := p.start(user(t, mounts, "listen", "/vol/socket", "await", "/vol/go", "read", "/vol/x", "make", "/vol/y", "list", "/vol", "make", "/vol/z", "sleep", ""))
	second.waitFor(t, "bound")
	if err := p.Destroy(testContext(t), first.ID); err != nil {
		t.Fatal(err)
	}
	out, _ := p.run(user(t, mounts, "dial", "/vol/socket", "make", "/vol/go", "await", "/vol/z"))
	if !strings.Contains(out, "socket: hello\n") || !strings.Contains(out, "await /vol/z: there") {
		t.Errorf("output of the successor:\n%s", out)
	}
	if !strings.Contains(second.String(), "list /vol: 4\n") { // which only the gofer can do
		t.Errorf("output of the second:\n%s", second)
	}
	if err := p.Destroy(testContext(t), second.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the Sentry alone
		if n := p.processesOfSandbox(); n != 1 {
			return fmt.Errorf("%d processes of the sandbox are left", n)
		}
		return nil
	})
}

// Who has a volume for reading alone joins the first that can write to it, and can
// still only read.
func TestSharedVolumeReaderJoinsItsWriter(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	reader := p.start(user(t, []specs.Mount{bindMount("/whole", dir, "ro"), bindMount("/sub", filepath.Join(dir, "sub"), "ro", "nosuid")},
		"await", "/whole/go", "dial", "/whole/socket", "dial", "/sub/socket", "make", "/whole/x", "make", "/sub/x", "filesystem", "/sub", "sleep", ""))
	p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "listen", "/vol/socket", "listen", "/vol/sub/socket", "make", "/vol/go", "sleep", ""))
	reader.waitFor(t, "filesystem")
	for _, want := range []string{
		"dial /whole/socket: hello", "dial /sub/socket: hello", "make /whole/x: open /whole/x: read-only file system",
		"make /sub/x: open /sub/x: read-only file system", "flags 0x3",
	} {
		if !strings.Contains(reader.String(), want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, reader)
		}
	}
}

// A writer that is started anew is joined by who reads, also while the one before has
// ended and is not yet removed.
func TestSharedVolumeReaderJoinsTheNextWriter(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	mounts := []specs.Mount{bindMount("/vol", dir, "rw")}
	writer := p.start(user(t, mounts, "listen", "/vol/first", "sleep", ""))
	writer.waitFor(t, "bound")
	reader := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "ro")}, "dial", "/vol/first", "await", "/vol/go", "dial", "/vol/next", "sleep", ""))
	reader.waitFor(t, "dial /vol/first: hello")
	if err := p.Signal(testContext(t), writer.ID, int(unix.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t), writer.ID); err != nil {
		t.Fatal(err)
	}
	next := p.start(user(t, mounts, "listen", "/vol/next", "make", "/vol/go", "sleep", ""))
	next.waitFor(t, "made")
	reader.waitFor(t, "dial /vol/next: ")
	if !strings.Contains(reader.String(), "dial /vol/next: hello\n") {
		t.Errorf("output %s", reader)
	}
}

// A writer whose program cannot be run leaves those who have joined it meanwhile with
// their volume.
func TestSharedVolumeReaderKeepsThatOfAWriterThatCannotStart(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	reader := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "ro")}, "await", "/vol/go", "list", "/vol", "sleep", ""))
	spec := shell(newRootfs(t), "")
	spec.Process.Args = []string{"/no/such"}
	spec.Mounts = append(spec.Mounts, bindMount("/vol", dir, "rw"))
	c, _ := newContainer(t, spec)
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(testContext(t), c.Container); !errdefs.IsInvalidArgument(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	reader.waitFor(t, "list /vol: ")
	if !strings.Contains(reader.String(), "list /vol: 1\n") {
		t.Errorf("output %s", reader)
	}
}

// Who may only read cannot make himself one who may write by namespaces of his own.
func TestSharedVolumeReaderInAUserNamespace(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	writer := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "make", "/vol/x", "sleep", ""))
	writer.waitFor(t, "made")
	out, _ := p.run(user(t, []specs.Mount{bindMount("/vol", dir, "ro")}, "read", "/vol/x", "seize", "/vol"))
	for _, want := range []string{"read /vol/x: made", "bind /vol: remount: operation not permitted", "remount /vol: operation not permitted", "seize /vol: tried"} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the volume has %v, %v", entries, err)
	}
}

// A container that could mount a read-only volume again keeps its own one, which the
// host keeps read-only.
func TestSharedVolumeReaderThatMayMount(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	mounts := []specs.Mount{bindMount("/vol", dir, "ro")}
	spec := shell(newRootfs(t), "echo started; sleep 1000")
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: mountCapabilities, Effective: mountCapabilities, Permitted: mountCapabilities}
	spec.Mounts = append(spec.Mounts, mounts...)
	before := p.start(spec)
	before.waitFor(t, "started")
	writer := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "make", "/vol/x", "sleep", ""))
	writer.waitFor(t, "made")
	again := *spec
	process := *spec.Process
	process.Args = []string{"/bin/sh", "-c", "mount -o remount,bind,rw /vol; touch /vol/y && echo written; echo done"}
	again.Process = &process
	out, _ := p.run(&again)
	if !strings.Contains(out, "done") || strings.Contains(out, "written") {
		t.Errorf("output %q", out)
	}
	out, _, err := p.sh(before.ID, "mount -o remount,bind,rw /vol; touch /vol/y && echo written; echo done")
	if err != nil || strings.Contains(out, "written") {
		t.Errorf("output %q, %v", out, err)
	}
}

// Without another container there is nothing to wait for, and no gate.
func TestGateIsNotPassedInVain(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	first := p.start(user(t, []specs.Mount{bindMount("/vol", dir, "ro")}, "sleep", ""))
	c, _ := newContainer(t, user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "sleep", ""))
	volumes, err := volumesOf(testContext(t), c.Container)
	if err != nil || len(volumes) != 2 {
		t.Fatalf("%+v, %v", volumes, err)
	}
	if sh := p.volumes.plan(c.Container, volumes); len(sh.joins) != 0 || len(sh.offers) != 1 {
		t.Errorf("%+v, with %s, which may only read", sh, first.ID)
	}
	// The kubelet's file, which each container of each pod has.
	hosts := filepath.Join(t.TempDir(), "etc-hosts")
	if err := os.WriteFile(hosts, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	second := p.start(user(t, []specs.Mount{bindMount("/etc/hosts", hosts, "rw")}, "sleep", ""))
	c, _ = newContainer(t, user(t, []specs.Mount{bindMount("/etc/hosts", hosts, "rw")}, "sleep", ""))
	if volumes, err = volumesOf(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	if sh := p.volumes.plan(c.Container, volumes); !sh.isNone() {
		t.Errorf("%+v, with %s", sh, second.ID)
	}
}

// The program is looked for, and what is wrong with it told, as without a gate.
func TestGateProgram(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	mounts := []specs.Mount{bindMount("/vol", dir, "rw")}
	first := p.start(user(t, mounts, "flock", "/vol/flock", "sleep", ""))
	first.waitFor(t, "held")
	spec := func(args ...string) *specs.Spec {
		s := shell(newRootfs(t), "")
		s.Process.Args, s.Process.Cwd = args, "/bin"
		s.Process.Env = []string{"PATH=/none:relative:/etc:/bin", "A=b c"}
		s.Mounts = append(s.Mounts, mounts...)
		for name, content := range map[string]string{"script": "#!/bin/sh\necho script \"$@\" $A", "broken": "\x7fELF", "denied": "x"} {
			mode := os.FileMode(0o755)
			if name == "denied" {
				mode = 0o644
			}
			if err := os.WriteFile(filepath.Join(s.Root.Path, "bin", name), []byte(content), mode); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	for name, args := range map[string][]string{
		"by PATH": {"script", "x", "", "y z"}, "by its path": {"/bin/script", "x", "", "y z"}, "from where it is": {"./script", "x", "", "y z"},
	} {
		if out, code := p.run(spec(args...)); out != "script x  y z b c\n" || code != 0 {
			t.Errorf("%s: %q, exit code %d", name, out, code)
		}
	}
	for program, want := range map[string]error{"missing": unix.ENOENT, "/no/such": unix.ENOENT, "/bin/denied": unix.EACCES, "denied": unix.EACCES, "broken": unix.ENOEXEC} {
		c, _ := newContainer(t, spec(program))
		if err := p.Create(testContext(t), c.Container); err != nil {
			t.Fatal(err)
		}
		err := p.Start(testContext(t), c.Container)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(fmt.Sprint(err), want.Error()) || !strings.Contains(fmt.Sprint(err), program) {
			t.Errorf("%s: %v, want %v", program, err, want)
		}
	}
	// A filter that refuses what a program can do without, such as to wait.
	strict := spec("echo", "strict")
	strict.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{
			Names:  []string{"nanosleep", "clock_nanosleep", "pause", "sched_yield", "access", "faccessat", "kill", "tgkill", "prctl", "ppoll"},
			Action: specs.ActErrno,
		}},
	}
	if out, code := p.run(strict); out != "strict\n" || code != 0 {
		t.Errorf("with a strict filter: %q, exit code %d", out, code)
	}
	// A user without rights, no new privileges, a terminal's absence: all passes the gate.
	s := spec("id", "-u")
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	s.Process.Capabilities, s.Process.NoNewPrivileges = nil, true
	if out, _ := p.run(s); out != "1000\n" {
		t.Errorf("as a user: %q", out)
	}
	if out, _ := p.run(spec("ls", "-a", "/dev")); strings.Contains(out, "gate") {
		t.Errorf("the gate is left in /dev: %s", out)
	}
}

// A daemon that died while a container waited for its volumes has left it to the next
// one, as it has those who have them.
func TestGateIsOpenedByTheNextDaemon(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	mounts := []specs.Mount{bindMount("/vol", dir, "rw")}
	first := p.start(user(t, mounts, "flock", "/vol/flock", "sleep", ""))
	first.waitFor(t, "held")
	runs, _ := newContainer(t, user(t, mounts, "flock", "/vol/flock", "sleep", ""))
	fails, _ := newContainer(t, user(t, mounts))
	fails.Spec.Process.Args = []string{"/no/such"}
	for _, c := range []*running{runs, fails} {
		p.startBehindGate(c.Container)
	}
	s, err := p.eng.Adopt(testContext(t), p.cfg, p.Process())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Learn(testContext(t), first.Container); err != nil {
		t.Fatal(err)
	}
	if started, err := s.Recover(testContext(t), runs.Container); err != nil || !started {
		t.Errorf("%v, %v", started, err)
	}
	runs.waitFor(t, "flock /vol/flock: resource temporarily unavailable")
	if _, err := s.Recover(testContext(t), fails.Container); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without a program: %v", err)
	}
	if started, err := s.Recover(testContext(t), fails.Container); err != nil || started {
		t.Errorf("it is left: %v, %v", started, err)
	}
	// Again, as by a third daemon.
	if started, err := s.Recover(testContext(t), runs.Container); err != nil || !started {
		t.Errorf("%v, %v", started, err)
	}
}

// startBehindGate is Start up to where the container waits.
func (p *pod) startBehindGate(c engine.Container) {
	p.t.Helper()
	ctx := testContext(p.t)
	must := func(err error) {
		if err != nil {
			p.t.Helper()
			p.t.Fatal(err)
		}
	}
	must(p.Create(ctx, c))
	g := p.containers.get(c.ID).gofer
	must(g.await(ctx))
	must(p.control.takePlace(ctx, c.ID, ttyOf(c, c.Stdio[:])))
	args, files, err := g.startArgs(c, c.Stdio[:])
	must(err)
	must(p.eng.addGate(&args, &files))
	must(p.control.call(ctx, methodStart, args, nil, files.all...))
	closeAll(files.own)
	g.closeConns()
}

// A volume in which paths are masked for a container is no other's to put in its place.
func TestSharedVolumeIsNotMasked(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "secret/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	mounts := []specs.Mount{bindMount("/run/vol", dir, "rw")}
	first := p.start(user(t, mounts, "flock", "/run/vol/flock", "sleep", ""))
	first.waitFor(t, "held")
	spec := user(t, mounts, "flock", "/run/vol/flock", "list", "/run/vol/secret")
	if err := os.Symlink("run", filepath.Join(spec.Root.Path, "link")); err != nil {
		t.Fatal(err)
	}
	spec.Linux.MaskedPaths = []string{"/link/vol/secret"}
	out, _ := p.run(spec)
	if !strings.Contains(out, "secret: 0\n") || !strings.Contains(out, "flock: held\n") {
		t.Errorf("output:\n%s", out)
	}
}

package gvisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

func TestStart(t *testing.T) {
	p := startPod(t)
	out, code := p.run(shell(newRootfs(t), "hostname; dmesg | grep -i gvisor | head -1; ip addr show eth0; exit 7"))
	if code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	for _, want := range []string{"pod-host", "gVisor", podIP} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

func TestExitStatus(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	for script, want := range map[string]engine.ExitStatus{
		"exit 0":     {},
		"exit 3":     {Code: 3},
		"kill -9 $$": {Code: 137, Signal: 9}, // without a pid namespace of its own, or it would be spared
	} {
		spec := shell(root, script)
		spec.Linux.Namespaces = nil
		c := p.start(spec)
		// Twice: the status is kept until the container is destroyed.
		for range 2 {
			if st, err := p.Wait(testContext(t), c.ID); err != nil || st != want {
				t.Errorf("%q: status %+v, %v; want %+v", script, st, err, want)
			}
		}
	}
}

func TestSignal(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	c := p.start(shell(root, "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
	c.waitFor(t, "ready")
	if err := p.Signal(testContext(t), c.ID, int(unix.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(testContext(t), c.ID); err != nil || st.Code != 5 {
		t.Errorf("status %+v, %v; want 5", st, err)
	}

	all := p.start(shell(root, "sleep 1000 & sleep 1000 & echo ready; wait"))
	all.waitFor(t, "ready")
	if err := p.Signal(testContext(t), all.ID, int(unix.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(testContext(t), all.ID); err != nil || st.Signal != 9 {
		t.Errorf("status %+v, %v; want signal 9", st, err)
	}
	if err := p.Destroy(testContext(t), all.ID); err != nil {
		t.Fatal(err)
	}
	<-all.eof // the children held the pipe, too
}

func TestWaitForAnUnknownContainer(t *testing.T) {
	p := startPod(t)
	ctx := testContext(t)
	id := newID(t)
	if _, err := p.Wait(ctx, id); !errdefs.IsNotFound(err) {
		t.Errorf("Wait: %v, want NotFound", err)
	}
	if err := p.Signal(ctx, id, 15, false); !errdefs.IsNotFound(err) {
		t.Errorf("Signal: %v, want NotFound", err)
	}
	if _, _, err := p.sh(id, "true"); !errdefs.IsNotFound(err) {
		t.Errorf("Exec: %v, want NotFound", err)
	}
	if err := p.Destroy(ctx, id); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if n := len(p.containers.ids()); n != 0 {
		t.Errorf("%d containers are remembered", n)
	}
}

func TestStartWithUserCapabilitiesAndLimits(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	spec := shell(root, "id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; ulimit -n; pwd")
	spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 2000}}
	spec.Process.NoNewPrivileges = true
	spec.Process.Cwd = "/tmp"
	spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_NET_BIND_SERVICE"}, Permitted: []string{"CAP_NET_BIND_SERVICE"},
		Effective: []string{"CAP_NET_BIND_SERVICE"}, Inheritable: []string{"CAP_NET_BIND_SERVICE"}, Ambient: []string{"CAP_NET_BIND_SERVICE"},
	}
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}}
	out, code := p.run(spec)
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	for _, want := range []string{"1000\n", "1000 2000", "CapEff:\t0000000000000400", "NoNewPrivs:\t1", "77\n", "/tmp\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

func TestStartSetuid(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	// A program that writes to a file of root; busybox gives up rights it is given.
	write := func(name string, content []byte, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/suid", guest.SetFiles(), 0o755|os.ModeSetuid)
	for noNewPrivileges, want := range map[bool]int{false: 0, true: 1} {
		write("etc/of-root", nil, 0o600)
		spec := shell(root, "exec /bin/suid /etc/of-root written")
		spec.Process.User = specs.User{UID: 1000, GID: 1000}
		spec.Process.NoNewPrivileges = noNewPrivileges
		if _, code := p.run(spec); code != want {
			t.Errorf("no new privileges %v: exit code %d, want %d", noNewPrivileges, code, want)
		}
	}
}

func TestSeccomp(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "mkdir /tmp/x || echo refused")
	errno := uint(unix.EPERM)
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
	c := p.start(func() *specs.Spec {
		s := spec
		s.Process.Args[2] += "; echo done; sleep 1000"
		return s
	}())
	c.waitFor(t, "done")
	if !strings.Contains(c.String(), "refused") {
		t.Errorf("mkdir was not refused: %q", c.String())
	}
	if out, _, err := p.sh(c.ID, "mkdir /tmp/y || echo refused"); err != nil || !strings.Contains(out, "refused") {
		t.Errorf("mkdir was not refused to an exec: %q, %v", out, err)
	}
}

func TestPIDNamespaces(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	own := p.start(shell(root, "echo first: $$; sleep 1000"))
	own.waitFor(t, "first: 1\n")

	shared := shell(root, "echo pid: $$; for f in /proc/[0-9]*/cmdline; do cat $f | tr '\\0' ' '; echo; done; sleep 1001")
	shared.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "pod"}}
	one := p.start(shared)
	one.waitFor(t, "/pause")
	if strings.Contains(one.String(), "pid: 1\n") {
		t.Errorf("container in the pod's namespace is the first process: %q", one.String())
	}
	out, _, err := p.sh(one.ID, "cat /proc/1/cmdline; ps")
	if err != nil || !strings.Contains(out, "/pause") || !strings.Contains(out, "sleep 1001") {
		t.Errorf("exec does not see the pod's processes: %q, %v", out, err)
	}
	if out, _, _ := p.sh(own.ID, "ps"); strings.Contains(out, "1001") || !strings.Contains(out, "sleep 1000") {
		t.Errorf("container with a namespace of its own sees others: %q", out)
	}
}

// An orphan of a pod whose containers share their pids becomes a child of the
// root container, which must not leave it a zombie.
func TestPIDNamespaceSharedHasNoZombies(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "(sleep 0.2 & ) ; echo ready; sleep 1000")
	spec.Linux.Namespaces = nil
	c := p.start(spec)
	c.waitFor(t, "ready")
	eventually(t, func() error {
		out, _, err := p.sh(c.ID, "grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null; ps | grep -c '[s]leep 0.2'")
		if err == nil && strings.TrimSpace(out) != "0" {
			err = fmt.Errorf("zombie or sleeper left: %q", out)
		}
		return err
	})
}

func TestMountSharedMemory(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	a := p.start(shell(root, "echo from a > /dev/shm/x; chmod 666 /dev/shm/x; echo ready; sleep 1000"))
	a.waitFor(t, "ready")
	out, code := p.run(shell(root, "cat /dev/shm/x; stat -c %a /dev/shm; df -k /dev/shm | tail -1"))
	if code != 0 || !strings.Contains(out, "from a") {
		t.Errorf("second container does not see the first one's file: %q", out)
	}
	if !strings.Contains(out, "1777") || !strings.Contains(out, " 65536 ") {
		t.Errorf("mode or size of /dev/shm is not as asked: %q", out)
	}
	spec := shell(root, "true")
	spec.Mounts[5].Options = []string{"size=1g"}
	c, _ := newContainer(t, spec)
	if err := p.Create(testContext(t), c.Container); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another size of /dev/shm: %v, want InvalidArgument", err)
	}
}

func TestStats(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	fill := shell(root, "head -c 50000000 /dev/zero > /memory/fill; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000 & echo ready; wait")
	fill.Mounts = append(fill.Mounts, specs.Mount{Destination: "/memory", Type: "tmpfs", Source: "tmpfs"})
	big := p.start(fill)
	small := p.start(shell(root, "echo ready; exec sleep 1000"))
	ended := p.start(shell(root, "true"))
	big.waitFor(t, "ready")
	small.waitFor(t, "ready")
	if _, err := p.Wait(testContext(t), ended.ID); err != nil {
		t.Fatal(err)
	}
	stats, err := p.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := stats[ended.ID]; ok {
		t.Error("a container that has ended is listed")
	}
	b, s := stats[big.ID], stats[small.ID]
	if b.MemoryBytes < 40<<20 || s.MemoryBytes > 20<<20 {
		t.Errorf("memory is %d and %d bytes, want over 40 MiB and under 20 MiB", b.MemoryBytes, s.MemoryBytes)
	}
	if b.Pids != 2 || s.Pids != 1 {
		t.Errorf("%d and %d processes, want 2 and 1", b.Pids, s.Pids)
	}
	if b.CPU <= s.CPU || b.CPUUser == 0 || b.CPUUser+b.CPUSystem != b.CPU {
		t.Errorf("CPU time %v (%v user, %v system) and %v", b.CPU, b.CPUUser, b.CPUSystem, s.CPU)
	}
}

func TestSysctls(t *testing.T) {
	p := startPod(t, func(c *engine.Config) {
		c.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.tcp_rmem": "4096 87380 6291456"}
	})
	spec := shell(newRootfs(t), "cat /proc/sys/net/ipv4/ip_local_port_range")
	if out, _ := p.run(spec); strings.Join(strings.Fields(out), " ") != "20000 30000" {
		t.Errorf("sysctl reads %q", out)
	}
	spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	if out, _ := p.run(spec); strings.Join(strings.Fields(out), " ") != "20000 30000" {
		t.Errorf("sysctl behind a read-only /proc/sys reads %q", out)
	}
}

func TestSysctlThatIsImpossible(t *testing.T) {
	p := bootPod(t, newTestEngine(t), func(c *engine.Config) {
		c.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "20000 30000", "kernel.shm_rmid_forced": "1"}
	})
	err := p.StartRoot(testContext(t))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "kernel.shm_rmid_forced") {
		t.Errorf("%v, want InvalidArgument that names the sysctl", err)
	}
}

func TestTerminal(t *testing.T) {
	p := startPod(t)
	master, slave := openPTY(t)
	spec := shell(newRootfs(t), "tty; stty size; read x; echo got $x; exit 4")
	spec.Process.Terminal = true
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	c := &running{Container: engine.Container{ID: newID(t), Spec: spec, Stdio: [3]*os.File{slave}}}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			_, _ = c.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	ctx := testContext(t)
	if err := p.Start(ctx, c.Container); err != nil { // without Create, as after a restart
		t.Fatal(err)
	}
	c.waitFor(t, "33 77")
	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	c.waitFor(t, "got hello")
	if st, err := p.Wait(ctx, c.ID); err != nil || st.Code != 4 {
		t.Errorf("status %+v, %v", st, err)
	}
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func TestHostNetwork(t *testing.T) {
	p := startPod(t, func(c *engine.Config) { c.NetNS = "" })
	out, code := p.run(shell(newRootfs(t), "ip addr show lo"))
	if code != 0 || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestBootSizeOfMachine(t *testing.T) {
	p := startPod(t, func(c *engine.Config) { c.MemoryLimit = 300 << 20 })
	out, _ := p.run(shell(newRootfs(t), "grep MemTotal /proc/meminfo"))
	if !strings.Contains(out, fmt.Sprint(300<<10)) {
		t.Errorf("memory of the sandbox: %q, want 300 MiB", out)
	}
}

func TestStartTwice(t *testing.T) {
	p := startPod(t)
	c := p.start(shell(newRootfs(t), "sleep 1000"))
	if err := p.Start(testContext(t), c.Container); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second Start: %v, want FailedPrecondition", err)
	}
	if err := p.Create(testContext(t), c.Container); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Create of a running one: %v, want AlreadyExists", err)
	}
	if _, err := p.Stats(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	spec := shell(root, "")
	spec.Process.Args = []string{"/no/such/program"}
	c, _ := newContainer(t, spec)
	ctx := testContext(t)
	if err := p.Create(ctx, c.Container); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx, c.Container); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Start of a missing program: %v, want InvalidArgument", err)
	}
	if n := p.processesOfSandbox(); n != 1 {
		t.Errorf("%d processes of the sandbox, want the Sentry alone", n)
	}
	// The same id can be used again.
	c.Spec = shell(root, "exit 6")
	if err := p.Start(ctx, c.Container); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(ctx, c.ID); err != nil || st.Code != 6 {
		t.Errorf("status %+v, %v", st, err)
	}
}

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func TestRunPodSandboxWithTwoContainers(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	a := k.shell("a", "dmesg; echo from a; echo err >&2; exec sleep 600")
	b := k.shell("b", "echo $HOSTNAME; exit 7")
	aID := k.start(id, pod, a)
	bID := k.start(id, pod, b)

	k.wants(k.logHas(pod, a, "from a"), "gVisor")
	if st := k.wait(bID); st.ExitCode != 7 || st.Reason != "Error" {
		t.Errorf("b ended with %d (%s), want 7 (Error)", st.ExitCode, st.Reason)
	}
	k.wants(k.log(pod, b), pod.Hostname)
	if got := k.exec(aID, "echo hello; id -u"); got != "hello\n0\n" {
		t.Errorf("exec printed %q", got)
	}

	st := k.status(aID)
	if st.State != runtimeapi.ContainerState_CONTAINER_RUNNING || st.StartedAt < st.CreatedAt || st.FinishedAt != 0 {
		t.Errorf("status of a = %v", st)
	}
	if st.LogPath != testenv.LogPath(pod, a) || !strings.HasPrefix(st.ImageId, "sha256:") {
		t.Errorf("status of a = %v", st)
	}
	ps, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	k.must(err)
	if ip := net.ParseIP(ps.Status.Network.Ip); ip == nil || len(ps.ContainersStatuses) != 2 || ps.Info["info"] == "" {
		t.Errorf("pod status = %v", ps)
	}

	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: aID, Timeout: 0})
	k.must(err)
	if st := k.wait(aID); st.ExitCode != 137 {
		t.Errorf("a ended with %d, want 137", st.ExitCode)
	}
}

func TestContainerStatusExitReasons(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	for _, c := range []struct {
		name, script string
		code         int32
		reason       string
	}{
		{"completed", "exit 0", 0, "Completed"},
		{"error", "exit 3", 3, "Error"},
		{"signal", "kill -9 $$", 137, "Error"},
	} {
		st := k.wait(k.start(id, pod, k.shell(c.name, c.script)))
		if st.ExitCode != c.code || st.Reason != c.reason || st.FinishedAt < st.StartedAt || st.StartedAt == 0 {
			t.Errorf("%s: %v", c.name, st)
		}
	}
	// The kubelet takes the first of a name for the present one. A time would make it
	// believe that none of them is of the present sandbox.
	for attempt := range uint32(4) {
		again := k.shell("again", "exit 0")
		again.Metadata.Attempt = attempt
		k.wait(k.start(id, pod, again))
	}
	resp, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	k.must(err)
	var names []string
	for _, c := range resp.ContainersStatuses {
		names = append(names, fmt.Sprint(c.Metadata.Name, c.Metadata.Attempt))
	}
	if want := []string{"again3", "again2", "again1", "again0", "signal0", "error0", "completed0"}; !slices.Equal(names, want) || resp.Timestamp != 0 {
		t.Errorf("statuses are of %v at %d", names, resp.Timestamp)
	}
}

func TestStartContainerCommandThatDoesNotExist(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := testenv.ContainerConfig("none", k.env.Images["busybox"], "/no/such/program")
	cid, err := k.create(id, pod, c)
	k.must(err)
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
	if err == nil {
		t.Fatal("it started")
	}
	k.wants(err.Error(), "/no/such/program")
	if st := k.status(cid); st.Reason != "StartError" || st.ExitCode != 128 || st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("status = %v", st)
	}
}

func TestStopContainerSendsTheStopSignalAndWaits(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("graceful", `trap 'echo got term; sleep 0.3; exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "ready")
	start := time.Now()
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 30})
	k.must(err)
	if st := k.status(cid); st.ExitCode != 5 || st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("status after %v = %v", time.Since(start), st)
	}
	k.wants(k.log(pod, c), "got term")
	// Stopping again is no error.
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 1})
	k.must(err)
}

func TestStopContainerKillsWhatIgnoresTheSignal(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("stubborn", `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "ready")
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 1})
	k.must(err)
	if st := k.status(cid); st.ExitCode != 137 {
		t.Errorf("status = %v", st)
	}
}

func TestCNIPortMapping(t *testing.T) {
	k := newKit(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	k.must(err)
	hostPort := l.Addr().(*net.TCPAddr).Port
	l.Close()
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 8080, HostPort: int32(hostPort)}}
	})
	c := testenv.ContainerConfig("web", k.env.Images["web"])
	c.Envs = []*runtimeapi.KeyValue{{Key: "PORT", Value: []byte("8080")}}
	k.start(id, pod, c)
	ip, err := k.env.Client.PodIP(k.ctx, id)
	k.must(err)
	get(k, "http://"+net.JoinHostPort(ip, "8080"))
	get(k, fmt.Sprintf("http://127.0.0.1:%d", hostPort))
}

func get(k kit, url string) string {
	k.Helper()
	client := http.Client{Timeout: 2 * time.Second}
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get(url)
		if err != nil {
			last = err
			continue
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		k.must(err)
		return string(body)
	}
	k.Errorf("get %s: %v", url, last)
	return ""
}

func TestRunPodSandboxContainersSeeEachOther(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	a := k.shell("a", `echo shared > /dev/shm/x; exec httpd -f -p 127.0.0.1:9000 -h /etc`)
	aID := k.start(id, pod, a)
	for deadline := time.Now().Add(10 * time.Second); k.exec(aID, "cat /dev/shm/x 2>/dev/null || true") == "" && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	out := k.run(id, pod, k.shell("b", `cat /dev/shm/x; for i in $(seq 50); do wget -q -O - http://127.0.0.1:9000/passwd && exit 0; sleep 0.1; done; exit 1`))
	k.wants(out, "shared", "root:x:0:0")
}

func TestPIDNamespaces(t *testing.T) {
	for name, mode := range map[string]runtimeapi.NamespaceMode{"shared": runtimeapi.NamespaceMode_POD, "own": runtimeapi.NamespaceMode_CONTAINER} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			ns := &runtimeapi.NamespaceOption{Pid: mode}
			id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
				p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: ns}
			})
			setNS := func(c *runtimeapi.ContainerConfig) { security(c).NamespaceOptions = ns }
			k.start(id, pod, k.shell("a", "exec sleep 612", setNS))
			out := k.run(id, pod, k.shell("b", "echo pid $$; ps", setNS))
			sees := strings.Contains(out, "612")
			if sees != (mode == runtimeapi.NamespaceMode_POD) {
				t.Errorf("sees the other container: %v\n%s", sees, out)
			}
			if first := strings.Contains(out, "pid 1\n"); first != (mode == runtimeapi.NamespaceMode_CONTAINER) {
				t.Errorf("is pid 1: %v\n%s", first, out)
			}
		})
	}
}

func TestHostNetwork(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Hostname = ""
		p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
	})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	k.must(err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "from the node")
			c.Close()
		}
	}()
	setNS := func(c *runtimeapi.ContainerConfig) {
		security(c).NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	}
	port := l.Addr().(*net.TCPAddr).Port
	out := k.run(id, pod, k.shell("a", fmt.Sprintf("hostname; nc 127.0.0.1 %d </dev/null", port), setNS))
	name, err := os.Hostname()
	k.must(err)
	k.wants(out, "from the node", name)

	// The pod's own sockets are listed, the node's are not.
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	k.must(err)
	own := free.Addr().(*net.TCPAddr).Port
	free.Close()
	out = k.run(id, pod, k.shell("b", fmt.Sprintf(`httpd -f -p 127.0.0.1:%d & for i in $(seq 50); do grep -q ":%04X " /proc/net/tcp && break; sleep 0.1; done
		cat /proc/net/tcp; kill $!`, own, own), setNS))
	k.wants(out, fmt.Sprintf("0100007F:%04X 00000000:0000 0A", own))
	if strings.Contains(out, fmt.Sprintf(":%04X ", port)) {
		t.Errorf("the node's listener on %d is in:\n%s", port, out)
	}
}

func TestMountsOfTheKubelet(t *testing.T) {
	k := newKit(t)
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o755))
	k.must(os.WriteFile(filepath.Join(dir, "hosts"), []byte("10.1.2.3 somewhere\n"), 0o644))
	k.must(os.WriteFile(filepath.Join(dir, "termination"), nil, 0o666))
	k.must(os.MkdirAll(filepath.Join(dir, "token"), 0o755))
	k.must(os.WriteFile(filepath.Join(dir, "token", "token"), []byte("secret"), 0o644))
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.9.9.9"}, Searches: []string{"svc.local"}, Options: []string{"ndots:5"}}
	})
	c := k.shell("a", `cat /etc/hosts /etc/resolv.conf /var/run/secrets/token
echo done > /dev/termination-log
echo no > /var/run/secrets/token 2>/dev/null && echo WRITABLE
ls -d /made`, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/etc/hosts", HostPath: filepath.Join(dir, "hosts")},
			{ContainerPath: "/dev/termination-log", HostPath: filepath.Join(dir, "termination")},
			{ContainerPath: "/var/run/secrets", HostPath: filepath.Join(dir, "token"), Readonly: true},
			{ContainerPath: "/made", HostPath: filepath.Join(dir, "made", "by", "us")},
		}
	})
	out := k.run(id, pod, c)
	k.wants(out, "somewhere", "nameserver 10.9.9.9", "search svc.local", "options ndots:5", "secret", "/made")
	if strings.Contains(out, "WRITABLE") {
		t.Error("a read-only mount was written to")
	}
	if msg, err := os.ReadFile(filepath.Join(dir, "termination")); err != nil || string(msg) != "done\n" {
		t.Errorf("termination log = %q, %v", msg, err)
	}
}

func TestCreateContainerFollowsTheImage(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := testenv.ContainerConfig("image", k.env.Images["nonroot"])
	cid := k.start(id, pod, c)
	k.wants(k.logHas(pod, c, "hello"), "uid=1000(app) gid=1000(app)", "/work\n")
	st := k.status(cid)
	if u := st.GetUser().GetLinux(); u.GetUid() != 1000 || u.GetGid() != 1000 {
		t.Errorf("user = %v, want the image's", st.User)
	}
	if st.StopSignal != runtimeapi.Signal_SIGNAL_SIGINT {
		t.Errorf("stop signal = %v, want the image's", st.StopSignal)
	}
	// Arguments replace the image's, its entrypoint stays.
	c = testenv.ContainerConfig("args", k.env.Images["nonroot"])
	c.Args = []string{"echo $GREETING world"}
	k.wants(k.run(id, pod, c), "hello world")
}

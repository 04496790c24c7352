package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// faultyNetwork is a node whose network ends in a plugin that does what the
// returned function says: ADD and DEL to an action of hack/failcni.
func faultyNetwork(t *testing.T) (kit, func(actions map[string]string)) {
	t.Helper()
	plugins := t.TempDir()
	k := ownNode(t, testenv.Options{
		DaemonArgs: []string{"--cni-bin-dir", plugins}, Config: "[timeouts]\nnetwork = '2s'\n",
	})
	entries, err := os.ReadDir(k.env.CNIBinDir)
	k.must(err)
	for _, e := range entries {
		k.must(os.Symlink(filepath.Join(k.env.CNIBinDir, e.Name()), filepath.Join(plugins, e.Name())))
	}
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, "failcni"), "./hack/failcni")
	build.Dir = k.env.Repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build failcni: %v\n%s", err, out)
	}
	file := filepath.Join(plugins, "actions.json")
	path := onlyConf(k)
	var conf map[string]any
	k.must(json.Unmarshal([]byte(readFile(k, path)), &conf))
	conf["plugins"] = append(conf["plugins"].([]any), map[string]any{"type": "failcni", "actionFile": file})
	data, err := json.Marshal(conf)
	k.must(err)
	k.must(os.WriteFile(path, data, 0o644))
	return k, func(actions map[string]string) {
		t.Helper()
		data, err := json.Marshal(actions)
		k.must(err)
		k.must(os.WriteFile(file, data, 0o644))
	}
}

// TestCNIPluginFaults: whatever a plugin does when a pod is attached, the
// pod's request ends with an error, nothing of it is left, the other pod does not
// notice, and the retry on a healthy plugin succeeds. Faults on the way out do not
// keep a pod from being stopped.
func TestCNIPluginFaults(t *testing.T) {
	k, act := faultyNetwork(t)
	other, pod := k.pod()
	cid := k.start(other, pod, k.shell("a", "exec sleep 600"))
	for action, code := range map[string]codes.Code{
		"fail": codes.Unavailable, "fail:11": codes.Unavailable, "exit:3": codes.Unavailable, "stderr": codes.Unavailable,
		"crash": codes.Unavailable, "garbage": codes.Unavailable, "flood": codes.Unavailable,
		"hang": codes.DeadlineExceeded,
	} {
		t.Run("ADD "+action, func(t *testing.T) {
			k := newKitOn(t, k.env)
			before, err := k.env.Observe()
			k.must(err)
			act(map[string]string{"ADD": action})
			cfg := k.env.PodConfig("faulty")
			_, err = k.env.Client.RunPod(k.ctx, cfg)
			if got := status.Code(err); got != code {
				t.Errorf("code %s, want %s: %v", got, code, err)
			}
			k.wants(status.Convert(err).Message(), "network")
			k.exec(cid, "true")
			gone(k, before)
			act(nil)
			id, err := k.env.Client.RunPod(k.ctx, cfg)
			k.must(err)
			k.must(k.env.Client.RemovePod(k.ctx, id))
			gone(k, before)
		})
	}
	for _, action := range []string{"fail", "crash", "garbage", "hang"} {
		t.Run("DEL "+action, func(t *testing.T) {
			k := newKitOn(t, k.env)
			before, err := k.env.Observe()
			k.must(err)
			act(nil)
			id, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("stuck"))
			k.must(err)
			act(map[string]string{"DEL": action})
			_, err = k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
			if err == nil && action != "garbage" { // what DEL prints says nothing
				t.Error("the address was not given back, and the pod is said to be stopped")
			}
			k.exec(cid, "true")
			act(nil)
			k.must(k.env.Client.RemovePod(k.ctx, id))
			gone(k, before)
		})
	}
}

// TestRunPodSandboxPluginSucceedsAfterTheCallerGaveUp: the retry gets the pod that was
// made meanwhile, and not a second one.
func TestRunPodSandboxPluginSucceedsAfterTheCallerGaveUp(t *testing.T) {
	k, act := faultyNetwork(t)
	act(map[string]string{"ADD": "slow:1s"})
	cfg := k.env.PodConfig("late")
	ctx, cancel := context.WithTimeout(k.ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := k.env.Client.RunPod(ctx, cfg); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("the caller gave up, and got %v", err)
	}
	id, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	list, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{})
	k.must(err)
	if len(list.Items) != 1 || list.Items[0].Id != id {
		t.Errorf("pods %v, want %s alone", list.Items, id)
	}
	k.must(k.env.Client.RemovePod(k.ctx, id))
}

// gone waits until there is nothing on the node that was not there before.
func gone(k kit, before testenv.Observation) {
	k.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		o, err := k.env.Observe()
		k.must(err)
		if left = o.Since(before); len(left) == 0 {
			return
		}
	}
	k.Errorf("left behind: %q", left)
}

// TestSandboxThatIsStoppedCostsOnlyItself: calls to a sandbox process that does not run
// end in time, calls about all pods do not wait for it, it goes on when the fault
// ends, and it can be stopped as it is.
func TestSandboxThatIsStoppedCostsOnlyItself(t *testing.T) {
	k := ownNode(t, testenv.Options{Config: "[timeouts]\nsandbox = '2s'\nnetwork = '10m'\n"})
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	stops := k.start(id, pod, k.shell("stops", "exec sleep 600"))
	other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "other" })
	otherID := k.start(other, otherPod, k.shell("a", "exec sleep 600"))

	running := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(k.ctx, limit)
		defer cancel()
		_, err := k.runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"sleep", "1005"}, Timeout: 5})
		running <- err
	}()
	for deadline := time.Now().Add(limit); !strings.Contains(k.exec(cid, "ps"), "sleep 1005"); {
		if time.Now().After(deadline) {
			t.Fatal("the command does not run")
		}
	}
	pid := sandboxPID(k, id)
	send(k, pid, unix.SIGSTOP)
	for range 3 { // no call is queued behind another
		ctx, cancel := context.WithTimeout(k.ctx, limit/2)
		defer cancel()
		_, err := k.runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"true"}, Timeout: 1})
		k.refused(err, codes.DeadlineExceeded, "timed out after 1s") // not by the caller's own deadline
	}
	k.refused(<-running, codes.DeadlineExceeded, "timed out after 5s")
	created, err := k.create(id, pod, k.shell("b", "true")) // needs no answer of it
	k.must(err)
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	_, err = k.runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created})
	k.refused(err, codes.DeadlineExceeded, created) // not by the caller's own deadline
	_, err = k.runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: stops, Timeout: 1})
	k.refused(err, codes.DeadlineExceeded, stops, "SIGKILL") // it was tried after the grace period
	_, err = k.runtime().ListContainerStats(k.ctx, &runtimeapi.ListContainerStatsRequest{})
	k.must(err)
	_, err = k.runtime().ListPodSandboxStats(k.ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	k.must(err)
	if got := k.exec(otherID, "echo fine"); got != "fine\n" {
		t.Errorf("the other pod printed %q", got)
	}

	send(k, pid, unix.SIGCONT)
	if got := k.exec(cid, "echo back"); got != "back\n" {
		t.Errorf("after the fault it printed %q", got)
	}
	send(k, pid, unix.SIGSTOP)
	k.must(k.env.Client.RemovePod(k.ctx, id))
	k.exec(otherID, "true")
}

// TestGoferThatDies: a container whose file server is gone has ended, and its caller
// is told; its pod can be stopped, and the other one does not notice.
func TestGoferThatDies(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "other" })
	otherID := k.start(other, otherPod, k.shell("a", "exec sleep 600"))
	_, gofer, _ := processesOf(k, id)
	killPID(k, gofer)
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	_, err := k.runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"cat", "/etc/passwd"}, Timeout: 5})
	t.Logf("exec without a gofer: %v", err)
	if ctx.Err() != nil {
		t.Error("exec without a gofer did not end")
	}
	if st := k.wait(cid); st.ExitCode != 137 {
		t.Errorf("the container without a gofer: %v", st)
	}
	k.exec(otherID, "cat /etc/passwd")
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 1})
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, id))
}

// TestDaemonOutOfDescriptors: a daemon without descriptors refuses what needs one,
// keeps what runs, and works again when there are some.
func TestDaemonOutOfDescriptors(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	before, err := k.env.Observe()
	k.must(err)

	daemon := k.env.Daemon.PID()
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(daemon), "fd"))
	k.must(err)
	var saved unix.Rlimit
	few := unix.Rlimit{Cur: uint64(len(open)) + 4, Max: 1 << 20}
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, nil, &saved))
	few.Max = saved.Max
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, &few, nil))
	_, err = k.env.Client.RunPod(k.ctx, k.env.PodConfig("none"))
	k.refused(err, codes.ResourceExhausted, "open files")
	_, err = k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{})
	k.must(err)
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, &saved, nil))

	k.exec(cid, "true")
	gone(k, before)
	again, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("none"))
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, again))
}

// TestDaemonWatchesNoFiles, so that no lack of inotify instances can hurt it. The
// library of CDI watches its directories unless it is told not to.
func TestDaemonWatchesNoFiles(t *testing.T) {
	k, specs := cdiNode(t)
	k.must(os.MkdirAll(specs, 0o755))
	k.must(os.WriteFile(filepath.Join(specs, "vendor.json"), []byte(`{"cdiVersion": "0.7.0", "kind": "vendor.test/gpu",
		"devices": [{"name": "0", "containerEdits": {"env": ["GPU=none"]}}]}`), 0o644))
	id, pod := k.pod()
	k.wants(k.run(id, pod, k.shell("device", "echo $GPU", func(c *runtimeapi.ContainerConfig) {
		c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor.test/gpu=0"}}
	})), "none")
	dir := filepath.Join("/proc", strconv.Itoa(k.env.Daemon.PID()), "fd")
	entries, err := os.ReadDir(dir)
	k.must(err)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && target == "anon_inode:inotify" {
			t.Error("the daemon holds an inotify instance")
		}
	}
}

func send(k kit, pid string, sig unix.Signal) {
	k.Helper()
	n, err := strconv.Atoi(pid)
	k.must(err)
	k.must(unix.Kill(n, sig))
}

// TestStreamServerIsNotExhaustedByStrangers: anybody on the node reaches the port of the
// streams, and can be silent there, or ask for what is not there and stay.
func TestStreamServerIsNotExhaustedByStrangers(t *testing.T) {
	k := streamKit{ownNode(t, testenv.Options{})}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	address, err := url.Parse(k.execURL(cid, false, "true"))
	k.must(err)
	early := k.execute(cid, "/bin/cat")

	daemon := k.env.Daemon.PID()
	var saved unix.Rlimit
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, nil, &saved))
	few := unix.Rlimit{Cur: uint64(countFDs(k.kit)) + 500, Max: saved.Max}
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, &few, nil))
	for i := range 1000 {
		stranger, err := net.Dial("tcp", address.Host)
		k.must(err)
		defer stranger.Close()
		if i%2 == 0 {
			io.WriteString(stranger, "GET /exec/AAAA HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	r := k.execute(cid, "/bin/sh", "-c", "echo served")
	r.exits(0)
	k.wants(r.stdout.String(), "served")
	another, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("another"))
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, another))
	early.send("still here\n")
	early.stdout.wait(k.kit, "still here\n")
	early.endStdin()
	early.exits(0)
	k.must(unix.Prlimit(daemon, unix.RLIMIT_NOFILE, &saved, nil))
}

package podsandbox_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

func (b bench) status(id string) *runtimeapi.ContainerStatus {
	b.Helper()
	r, err := b.Client.Runtime.ContainerStatus(b.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	b.must(err)
	return r.GetStatus()
}

// TestStopContainerEndsOnAFullLogDisk: a container that is killed has ended, though the
// rest of what it printed cannot be written.
func TestStopContainerEndsOnAFullLogDisk(t *testing.T) {
	b := newBench(t)
	cfg := b.config("full")
	cfg.LogDirectory = filepath.Join(b.LogDir(), "full")
	b.must(os.Mkdir(cfg.LogDirectory, 0o755))
	b.must(unix.Mount("tmpfs", cfg.LogDirectory, "tmpfs", 0, "size=4096"))
	t.Cleanup(func() { _ = unix.Unmount(cfg.LogDirectory, unix.MNT_DETACH) })
	pod, err := b.Client.RunPod(b.ctx, cfg)
	b.must(err)
	c := testenv.ContainerConfig("c", b.Images[0], "/bin/sh", "-c", "echo "+strings.Repeat("x", 20_000)+"; "+enginetest.Stubborn)
	id, err := b.Client.RunContainer(b.ctx, pod, cfg, c)
	b.must(err)
	_, err = b.Client.Runtime.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
	b.must(err)
	if st := b.status(id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 137 {
		t.Errorf("after the stop: %v", st)
	}
}

// TestContainerEndIsOOMKilledOnlyByItsOwnKills: what the kernel killed in the pod before a
// container was started says nothing about its end.
func TestContainerEndIsOOMKilledOnlyByItsOwnKills(t *testing.T) {
	for name, c := range map[string]struct {
		before, after bool
		reason        string
	}{
		"before its start": {before: true, reason: "Error"},
		"while it runs":    {after: true, reason: "OOMKilled"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pod := b.pod("a")
			if c.before {
				b.oomKill(pod)
			}
			id := b.sleeper(pod, "a")
			if c.after {
				b.oomKill(pod)
			}
			if !b.Engine.KillSandbox(pod) {
				t.Fatal("there was no sandbox")
			}
			b.eventually("the container has ended", func() error {
				if st := b.status(id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
					return os.ErrDeadlineExceeded
				}
				return nil
			})
			if st := b.status(id); st.Reason != c.reason {
				t.Errorf("it ended by %s: %s", st.Reason, st.Message)
			}
		})
	}
}

// oomKill lets the kernel kill a process in a pod's cgroup for want of memory.
func (b bench) oomKill(pod string) {
	b.Helper()
	dir, limit := filepath.Join("/sys/fs/cgroup/memory", b.CgroupParent, pod), "memory.limit_in_bytes"
	unlimited := "-1"
	if _, err := os.Stat(dir); err != nil {
		dir, limit = filepath.Join("/sys/fs/cgroup", b.CgroupParent, pod), "memory.max"
		unlimited = "max"
	}
	b.must(os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(8<<20)), 0))
	err := exec.CommandContext(b.ctx, "/bin/sh", "-c", "echo $$ > "+filepath.Join(dir, "cgroup.procs")+"; head -c 256m /dev/zero | tail -c 256m >/dev/null").Run()
	b.must(os.WriteFile(filepath.Join(dir, limit), []byte(unlimited), 0))
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 137 {
		b.Fatalf("the kernel did not kill a process that takes too much: %v", err)
	}
}

// TestUpdateContainerResourcesBesideAStop finds no sandbox that the stop has taken away.
func TestUpdateContainerResourcesBesideAStop(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		name := "a" + strconv.Itoa(i)
		pod := b.pod(name)
		id := b.sleeper(pod, name)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					_, err := b.Client.Runtime.UpdateContainerResources(b.ctx, &runtimeapi.UpdateContainerResourcesRequest{
						ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 30},
					})
					if err != nil {
						if strings.Contains(err.Error(), "panic") {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		_, err := b.Client.Runtime.StopPodSandbox(b.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
		b.must(err)
		wg.Wait()
	}
}

// slowNetwork takes its time, whatever its caller says.
type slowNetwork struct {
	network.Host
	takes time.Duration
	ended chan struct{}
}

func (n *slowNetwork) Attach(ctx context.Context, p network.Pod) (network.Result, error) {
	defer close(n.ended)
	time.Sleep(n.takes)
	return n.Host.Attach(ctx, p)
}

// TestCloseWaitsForOperations: nothing works on what is closed after it.
func TestCloseWaitsForOperations(t *testing.T) {
	b := newBench(t)
	slow := &slowNetwork{takes: 300 * time.Millisecond, ended: make(chan struct{})}
	b.Network = slow
	b.restart()
	ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := b.Client.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: b.config("a")}); err == nil {
		t.Fatal("the network was quick")
	}
	b.must(b.Kill())
	select {
	case <-slow.ended:
	default:
		t.Error("the manager was closed while a pod was being attached")
	}
	b.Network = nil
	b.must(b.Start(b.ctx))
	b.eventually("the pod is undone", func() error {
		if n := len(b.Engine.Sandboxes()); n != 0 {
			return os.ErrExist
		}
		return nil
	})
}

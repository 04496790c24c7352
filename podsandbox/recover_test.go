package podsandbox_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/fakenode"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// bench is a test with a node of its own.
type bench struct {
	*testing.T
	*fakenode.Node
	ctx context.Context
}

func newBench(t *testing.T) bench {
	t.Helper()
	if why := fakenode.Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	n, err := fakenode.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = n.Client.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: n.Images[0]}})
	if err != nil {
		t.Fatal(err)
	}
	return bench{t, n, ctx}
}

func (b bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b bench) config(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: name},
		LogDirectory: b.LogDir(), Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: b.CgroupParent},
	}
}

func (b bench) pod(name string) string {
	b.Helper()
	id, err := b.Client.RunPod(b.ctx, b.config(name))
	b.must(err)
	return id
}

// sleeper starts a container that ends when it is asked to.
func (b bench) sleeper(podID, podName string) string {
	b.Helper()
	c := testenv.ContainerConfig("c", b.Images[0], "/bin/sh", "-c", enginetest.Polite)
	id, err := b.Client.RunContainer(b.ctx, podID, b.config(podName), c)
	b.must(err)
	return id
}

func (b bench) state(podID string) runtimeapi.PodSandboxState {
	b.Helper()
	st, err := b.Client.Runtime.PodSandboxStatus(b.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID})
	b.must(err)
	return st.GetStatus().GetState()
}

func (b bench) restart() {
	b.Helper()
	b.must(b.Kill())
	b.must(b.Start(b.ctx))
}

func (b bench) eventually(what string, check func() error) {
	b.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	b.Fatalf("%s: %v", what, err)
}

// hungNetwork takes pods, and does not let them go while it hangs.
type hungNetwork struct {
	network.Host
	hangs  atomic.Bool
	asked  atomic.Int64 // for what hangs
	attach atomic.Bool  // refuse new pods
}

func (n *hungNetwork) wait(ctx context.Context) error {
	n.asked.Add(1)
	for n.hangs.Load() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (n *hungNetwork) Attach(ctx context.Context, p network.Pod) (network.Result, error) {
	if n.attach.Load() {
		return network.Result{}, fmt.Errorf("no address: %w", errdefs.ErrUnavailable)
	}
	return n.Host.Attach(ctx, p)
}

func (n *hungNetwork) Detach(ctx context.Context, _ network.Pod) error { return n.wait(ctx) }

func (n *hungNetwork) GC(ctx context.Context, _ func() []network.Pod) error { return n.wait(ctx) }

// TestRecoverWaitsForNoNetwork: the daemon answers while all that an earlier one began,
// and the collection of addresses, hang in the network; and that is done in the end.
func TestRecoverWaitsForNoNetwork(t *testing.T) {
	b := newBench(t)
	cni := &hungNetwork{}
	b.Network = cni
	b.restart()
	runs := b.pod("runs")
	c := b.sleeper(runs, "runs")
	stops := b.pod("stops")
	cni.hangs.Store(true)
	t.Cleanup(func() { cni.hangs.Store(false) }) // whatever fails, before the node is closed
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(b.ctx, 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if _, err := b.Client.Runtime.StopPodSandbox(short(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: stops}); err == nil {
		t.Fatal("a pod was stopped without its network")
	}
	cni.attach.Store(true)
	if _, err := b.Client.Runtime.RunPodSandbox(short(), &runtimeapi.RunPodSandboxRequest{Config: b.config("undone")}); err == nil {
		t.Fatal("a pod ran without a network")
	}
	cni.attach.Store(false)
	cni.asked.Store(0)

	b.restart() // which returns when the daemon answers
	if got := b.state(runs); got != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the pod that runs is %v", got)
	}
	if out, err := b.Client.Exec(b.ctx, c, "/bin/sh", "-c", "echo out; exit 0"); err != nil || out != "out\n" {
		t.Errorf("exec printed %q, %v", out, err)
	}
	b.pod("undone") // its name is free, though the first one is still being undone
	b.eventually("the network is asked by three at once", func() error {
		if n := cni.asked.Load(); n < 3 { // two pods, and GC
			return fmt.Errorf("it was asked %d times", n)
		}
		return nil
	})
	all, err := b.Client.Runtime.ListPodSandbox(b.ctx, &runtimeapi.ListPodSandboxRequest{})
	b.must(err)
	if len(all.Items) != 3 {
		t.Errorf("%d pods are listed", len(all.Items)) // not the one that is being undone
	}
	cni.hangs.Store(false)
	b.eventually("what was begun is finished", func() error {
		records, err := os.ReadDir(filepath.Join(b.Dir, "root", "pods"))
		if err == nil && len(records) != 3 {
			err = fmt.Errorf("there are %d pods", len(records))
		}
		return err
	})
	_, err = b.Client.Runtime.RemovePodSandbox(b.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: stops})
	b.must(err)
}

// isUnavailable tells whether a caller was told to try again.
func isUnavailable(err error) bool {
	return err != nil && strings.Contains(err.Error(), "code = Unavailable")
}

// busyEngine cannot adopt so many times.
type busyEngine struct {
	engine.Engine
	fails atomic.Int64
	err   error
}

func (e *busyEngine) Adopt(ctx context.Context, cfg engine.Config, p engine.Process) (engine.Sandbox, error) {
	if e.fails.Add(-1) >= 0 {
		return nil, e.err
	}
	return e.Engine.Adopt(ctx, cfg, p)
}

// TestRecoverKeepsPodsThatCannotBeAdoptedNow: for want of a descriptor, say. They are as
// they were, answer Unavailable, and are adopted later.
func TestRecoverKeepsPodsThatCannotBeAdoptedNow(t *testing.T) {
	b := newBench(t)
	id := b.pod("a")
	c := b.sleeper(id, "a")
	busy := &busyEngine{Engine: b.Engine, err: fmt.Errorf("open /proc: too many open files: %w", errdefs.ErrUnavailable)}
	busy.fails.Store(1)
	b.Boots = busy
	b.restart()
	if got := b.state(id); got != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Fatalf("the pod is %v", got)
	}
	_, err := b.Client.Exec(b.ctx, c, "/bin/sh", "-c", "echo out; exit 0")
	if !isUnavailable(err) || !strings.Contains(err.Error(), "taken over") {
		t.Errorf("exec meanwhile: %v", err)
	}
	_, err = b.Client.Runtime.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: c})
	if !isUnavailable(err) {
		t.Errorf("a stop meanwhile: %v", err)
	}
	b.eventually("the pod is adopted", func() error {
		_, err := b.Client.Exec(b.ctx, c, "/bin/sh", "-c", "echo out; exit 0")
		return err
	})
	if n := len(b.Engine.Sandboxes()); n != 1 {
		t.Errorf("there are %d sandboxes", n)
	}
	st, err := b.Client.Runtime.ContainerStatus(b.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c})
	b.must(err)
	if st.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container: %v", st.Status)
	}
}

// TestRecoverStopsPodsThatCannotBeAdopted: a pod can be stopped and removed while nothing
// is known of its sandbox.
func TestRecoverStopsPodsThatCannotBeAdopted(t *testing.T) {
	b := newBench(t)
	id := b.pod("a")
	b.sleeper(id, "a")
	busy := &busyEngine{Engine: b.Engine, err: errdefs.ErrUnavailable}
	busy.fails.Store(1 << 30)
	b.Boots = busy
	b.restart()
	_, err := b.Client.Runtime.RemovePodSandbox(b.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	b.must(err)
	if n := len(b.Engine.Sandboxes()); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

package stats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// testSandbox says that its containers use 1 MiB each, while it answers.
type testSandbox struct {
	engine.Sandbox
	pod    *state.Pod
	broken atomic.Bool
}

var errBroken = errors.New("the sandbox does not answer")

func (s *testSandbox) Stats(context.Context) (map[string]engine.Usage, error) {
	if s.broken.Load() {
		return nil, errBroken
	}
	use := map[string]engine.Usage{}
	for _, c := range s.pod.Containers() {
		use[c.ID()] = engine.Usage{CPU: time.Second, MemoryBytes: 1 << 20, Pids: 1}
	}
	return use, nil
}

func (s *testSandbox) Inodes(_ context.Context, ids []string) (map[string]uint64, error) {
	return counts[uint64](s, ids)
}

func (s *testSandbox) Descriptors(_ context.Context, ids []string) (map[string]engine.Descriptors, error) {
	return counts[engine.Descriptors](s, ids)
}

func counts[T any](s *testSandbox, ids []string) (map[string]T, error) {
	if s.broken.Load() {
		return nil, errBroken
	}
	out := map[string]T{}
	for _, id := range ids {
		out[id] = *new(T)
	}
	return out, nil
}

// testNode has a collector and pods on the node's network.
type testNode struct {
	testing.TB
	*Collector
	registry *state.Registry
	work     *background.Group
}

func newTestNode(t testing.TB) *testNode {
	paths := layout.Paths{Root: t.TempDir(), State: t.TempDir()}
	must(t, paths.Make())
	registry, err := state.Open(paths)
	must(t, err)
	work := background.New()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		must(t, work.Close(ctx))
	})
	c := New(registry, work, resources.New(registry, work, nil, nil, time.Minute), nil)
	c.layerUsage = func(context.Context, string) (image.Usage, error) {
		return image.Usage{Bytes: 4096, Time: time.Now()}, nil
	}
	return &testNode{t, c, registry, work}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add makes a ready pod with a running container.
func (n *testNode) add(name string) (*state.Pod, *state.Container, *testSandbox) {
	n.Helper()
	cfg := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name}, Linux: &runtimeapi.LinuxPodSandboxConfig{
		SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}},
	}}
	p, err := n.registry.CreatePod(cfg, "", "")
	must(n, err)
	must(n, p.Transition(lifecycle.Booted, nil))
	c, err := n.registry.CreateContainer(p, record.ContainerMeta{Config: record.Message[*runtimeapi.ContainerConfig]{
		Proto: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}},
	}})
	must(n, err)
	c.CreationEnded()
	for _, step := range []lifecycle.Event{lifecycle.Prepared, lifecycle.Start, lifecycle.Started} {
		must(n, c.Transition(step, nil))
	}
	s := &testSandbox{pod: p}
	p.SetSandbox(s)
	return p, c, s
}

func (n *testNode) podStatsOf(p *state.Pod) *runtimeapi.LinuxPodSandboxStats {
	n.Helper()
	st, err := n.PodStats(n.Context(), p.ID())
	must(n, err)
	return st.GetLinux()
}

func TestPodStatsOfAnUnreadableCgroup(t *testing.T) {
	if version, systemd := cgroup.Mode(); os.Geteuid() != 0 || version == 0 || systemd {
		t.Skip("needs root, and cgroups that systemd does not manage")
	}
	n := newTestNode(t)
	p, _, _ := n.add("p")
	parent := fmt.Sprintf("/cri-sandbox-stats-test-%d", os.Getpid())
	g, err := cgroup.Create(parent, p.ID(), cgroup.Limits{})
	must(t, err)
	t.Cleanup(func() { must(t, g.Delete(context.Background())) })
	must(t, g.Delete(t.Context()))
	p.SetGroup(g)
	st := n.podStatsOf(p)
	if st.GetCpu() != nil || st.GetMemory() != nil {
		t.Errorf("of a cgroup that cannot be read: CPU %v, memory %v", st.GetCpu(), st.GetMemory())
	}
	if st.GetProcess() == nil || len(st.GetContainers()) != 1 || st.GetContainers()[0].GetMemory() == nil {
		t.Errorf("what the sandbox knows is missing: %v", st)
	}
	for _, m := range n.ListPodMetrics(t.Context())[0].Metrics {
		switch m.Name {
		case cpuUsage.name, memoryUsage.name, oomEvents.name:
			t.Errorf("metric %v of a cgroup that cannot be read", m)
		}
	}
	_, err = cgroup.Create(parent, p.ID(), cgroup.Limits{})
	must(t, err)
	if st := n.podStatsOf(p); st.GetCpu() == nil || st.GetMemory() == nil {
		t.Errorf("the failure is remembered: %v", st)
	}
}

func TestPodStatsOfASandboxThatDoesNotAnswer(t *testing.T) {
	n := newTestNode(t)
	p, _, s := n.add("p")
	s.broken.Store(true)
	st := n.podStatsOf(p)
	if st.GetProcess() != nil || len(st.GetContainers()) != 1 || st.GetContainers()[0].GetCpu() != nil || st.GetContainers()[0].GetMemory() != nil {
		t.Errorf("made up: %v", st)
	}
	for _, m := range n.ListPodMetrics(t.Context())[0].Metrics {
		if m.Name == processCount.name {
			t.Errorf("metric %v of a sandbox that does not answer", m)
		}
	}
	s.broken.Store(false)
	st = n.podStatsOf(p)
	if st.GetProcess().GetProcessCount().GetValue() != 1 || st.GetContainers()[0].GetMemory().GetUsageBytes().GetValue() != 1<<20 {
		t.Errorf("the failure is remembered: %v", st)
	}
	if rate := st.GetContainers()[0].GetCpu().GetUsageNanoCores(); rate != nil {
		t.Errorf("a rate from one sample: %v", rate)
	}
}

// TestForgetLeavesNothing asks for pods and containers while they are removed.
func TestForgetLeavesNothing(t *testing.T) {
	n := newTestNode(t)
	for range 30 {
		p, c, _ := n.add("p")
		stop := make(chan struct{})
		var g sync.WaitGroup
		for range 3 {
			g.Go(func() {
				for {
					w, done := newWaiter(t.Context())
					n.podStats(w, p) // of one who has found the pod before
					n.podMetrics(w, p)
					done()
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		time.Sleep(time.Millisecond)
		must(t, n.registry.DeleteContainer(c, false))
		n.Forget(c.ID())
		n.resources.Forget(c.ID())
		must(t, n.registry.DeletePod(p))
		n.Forget(p.ID())
		close(stop)
		g.Wait()
		if peak := n.resources.Peak(c.ID()); peak != 0 {
			t.Fatalf("a peak of %d is kept", peak)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, n.work.Close(ctx)) // looks have ended
	for what, left := range map[string]int{"use": kept(n.usage), "layers": kept(n.layers), "inodes": kept(n.inodes), "descriptors": kept(n.descriptors)} {
		if left > 0 {
			t.Errorf("%s: %d samples of what is gone", what, left)
		}
	}
}

func kept[T any](s *sampler[T]) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subjects)
}

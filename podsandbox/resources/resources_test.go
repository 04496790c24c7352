package resources

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

func newContainer(t testing.TB, pods *state.Registry, p *state.Pod, name string) *state.Container {
	t.Helper()
	c, err := pods.CreateContainer(p, record.ContainerMeta{Config: record.Message[*runtimeapi.ContainerConfig]{
		Proto: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}},
	}})
	must(t, err)
	c.CreationEnded()
	return c
}

func newRegistry(t testing.TB) *state.Registry {
	t.Helper()
	paths := layout.Paths{Root: t.TempDir(), State: t.TempDir()}
	must(t, paths.Make())
	pods, err := state.Open(paths)
	must(t, err)
	return pods
}

func newPod(t testing.TB, pods *state.Registry, name string) *state.Pod {
	t.Helper()
	p, err := pods.CreatePod(&runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name}}, "", "")
	must(t, err)
	return p
}

func TestPeakIsTheMostThatWasSeen(t *testing.T) {
	pods := newRegistry(t)
	p := newPod(t, pods, "p")
	first, second := newContainer(t, pods, p, "a"), newContainer(t, pods, p, "b")
	a, b := first.ID(), second.ID()
	c := New(pods, nil, nil, nil, 0)
	for _, use := range []uint64{5, 9, 7} {
		c.NotePeaks(map[string]engine.Usage{a: {MemoryBytes: use}})
	}
	c.NotePeaks(map[string]engine.Usage{b: {MemoryBytes: 1}})
	if a, b := c.Peak(a), c.Peak(b); a != 9 || b != 1 {
		t.Errorf("peaks %d and %d, want 9 and 1", a, b)
	}
	must(t, pods.DeleteContainer(first, false))
	c.Forget(a)
	// Somebody has looked before and tells now.
	c.NotePeaks(map[string]engine.Usage{a: {MemoryBytes: 3}})
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.peaks[a]; known || len(c.peaks) != 1 {
		t.Errorf("one that is gone is among %v", c.peaks)
	}
}

package resources

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// testLimit is of each container, and what its pod's cgroup uses at least.
const testLimit = 1 << 20

// testSandbox says what its one container uses, and learns that it is killed.
type testSandbox struct {
	engine.Sandbox
	id     string // of the container
	use    atomic.Uint64
	hangs  atomic.Bool
	asked  atomic.Int64
	killed chan struct{}
	once   sync.Once
}

func (s *testSandbox) Stats(ctx context.Context) (map[string]engine.Usage, error) {
	s.asked.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return map[string]engine.Usage{s.id: {MemoryBytes: s.use.Load()}}, nil
}

func (s *testSandbox) Signal(_ context.Context, id string, _ int, all bool) error {
	if id == s.id && all {
		s.once.Do(func() { close(s.killed) })
	}
	return nil
}

// watchedNode has pods of one container with a limit each, in cgroups that use as much.
type watchedNode struct {
	testing.TB
	*Controller
	files     string // what the pods use, by number
	pods      []*state.Pod
	sandboxes []*testSandbox
}

func newWatchedNode(t testing.TB, pods int) *watchedNode {
	t.Helper()
	if version, systemd := cgroup.Mode(); os.Geteuid() != 0 || version == 0 || systemd {
		t.Skip("needs root, and cgroups that systemd does not manage")
	}
	registry := newRegistry(t)
	work := background.New()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		must(t, work.Close(ctx))
	})
	n := &watchedNode{TB: t, Controller: New(registry, work, engine.Handlers{"": enginetest.New()}, nil, time.Minute)}
	var err error
	n.files, err = os.MkdirTemp("/dev/shm", "watched")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(n.files) })
	for i := range pods {
		n.add(fmt.Sprint(i))
		n.fill(i, testLimit)
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *watchedNode) add(name string) *cgroup.Group {
	n.Helper()
	p := newPod(n, n.Controller.pods, name)
	must(n, p.Transition(lifecycle.Booted, nil))
	c := newContainer(n, n.Controller.pods, p, "c")
	setLimit(n, c, testLimit)
	for _, step := range []lifecycle.Event{lifecycle.Prepared, lifecycle.Start, lifecycle.Started} {
		must(n, c.Transition(step, nil))
	}
	g, err := cgroup.Create(fmt.Sprintf("/cri-sandbox-watch-test-%d", os.Getpid()), p.ID(), cgroup.Limits{})
	must(n, err)
	n.Cleanup(func() { must(n, g.Delete(context.Background())) })
	p.SetGroup(g)
	s := &testSandbox{id: c.ID(), killed: make(chan struct{})}
	s.use.Store(testLimit - 4096)
	p.SetSandbox(s)
	n.pods, n.sandboxes = append(n.pods, p), append(n.sandboxes, s)
	return g
}

func setLimit(t testing.TB, c *state.Container, limit int64) {
	t.Helper()
	must(t, c.Update(func(st *record.ContainerStatus) error {
		st.Resources = &record.Message[*runtimeapi.LinuxContainerResources]{Proto: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: limit}}
		return nil
	}))
}

func (n *watchedNode) container(i int) *state.Container { return n.pods[i].Containers()[0] }

func (n *watchedNode) asked() (all int64) {
	for _, s := range n.sandboxes {
		all += s.asked.Load()
	}
	return all
}

// simulated is a watch of all pods whose rounds are done one after the other, whatever
// the clock says.
func (n *watchedNode) simulated() *memoryWatch {
	w := newMemoryWatch(n.Controller, n.Context(), time.Unix(1e9, 0))
	n.Cleanup(w.close)
	for i, p := range n.pods { // each at a time of its own
		w.pods[p] = &watchedPod{Pod: p, changed: true, next: w.round.Add(time.Duration(i) * 10 * time.Millisecond)}
	}
	return w
}

// run does the rounds of so much time, and returns how many there were, and how often
// they looked at a pod.
func (w *memoryWatch) run(span time.Duration) (rounds, looks int) {
	for end := w.round.Add(span); w.round.Before(end); rounds++ {
		now := w.round
		w.lookAtAll(now)
		waiting := 0
		for _, p := range w.pods {
			if p.lookedAt.Equal(now) {
				looks++
			}
			if p.waits {
				waiting++
			}
		}
		for range waiting {
			w.hear(<-w.answers, now)
		}
	}
	return rounds, looks
}

// TestWatchMemoryCosts counts what a hundred containers cost that stay just below their
// limits.
func TestWatchMemoryCosts(t *testing.T) {
	const pods, span = 100, time.Minute
	n := newWatchedNode(t, pods)
	rounds, looks := n.simulated().run(span)
	if most := int(span/quietLook) * 11 / 10; rounds > most {
		t.Errorf("%d rounds in a minute, want at most %d", rounds, most)
	}
	if most := pods * int(span/longestShut) * 11 / 10; looks > most {
		t.Errorf("%d looks at pods in a minute, want at most %d", looks, most)
	}
	if asked, most := n.asked(), int64(pods*(span/slowLook+1)); asked < pods || asked > most {
		t.Errorf("%d questions in a minute, want at most %d", asked, most)
	}
}

// fill has so many bytes more in use by a pod.
func (n *watchedNode) fill(i, bytes int) {
	n.Helper()
	var script strings.Builder
	for _, dir := range n.pods[i].Group().Paths() {
		fmt.Fprintf(&script, "echo $$ > %s/cgroup.procs\n", dir)
	}
	fmt.Fprintf(&script, "head -c %d /dev/zero >> %s\n", bytes, n.file(i))
	if out, err := exec.Command("sh", "-ec", script.String()).CombinedOutput(); err != nil {
		n.Fatalf("fill cgroup of a pod: %v, %s", err, out)
	}
}

func (n *watchedNode) file(i int) string { return filepath.Join(n.files, fmt.Sprint(i)) }

// TestWatchMemoryLooksBehindTheGate: one that grows is found in the next round, and where
// another gives as much back, soon.
func TestWatchMemoryLooksBehindTheGate(t *testing.T) {
	for name, c := range map[string]struct {
		shrinks bool
		within  time.Duration
	}{
		"one grows":                  {false, quietLook},
		"one grows, another shrinks": {true, longestShut},
	} {
		t.Run(name, func(t *testing.T) {
			n := newWatchedNode(t, 3)
			n.fill(0, 8*mib)
			n.fill(1, mib)
			w := n.simulated()
			w.run(2 * quietAfter)
			before := n.sandboxes[1].asked.Load()
			if c.shrinks {
				must(t, os.Truncate(n.file(0), testLimit+4*mib))
			}
			n.fill(1, 4*mib)
			w.run(c.within)
			if n.sandboxes[1].asked.Load() == before {
				t.Error("the sandbox was not asked")
			}
		})
	}
}

// TestWatchMemoryEndsWithTheLimit: without a limit nobody is watched, or killed for one
// that is gone.
func TestWatchMemoryEndsWithTheLimit(t *testing.T) {
	n := newWatchedNode(t, 2)
	w := n.simulated()
	w.run(slowLook / 2)
	for i, s := range n.sandboxes {
		setLimit(t, n.container(i), 0)
		s.use.Store(2 * testLimit)
	}
	w.run(slowLook * 2)
	if len(w.pods) > 0 || len(w.gates) > 0 || !w.end() {
		t.Errorf("%d pods are watched behind %d gates", len(w.pods), len(w.gates))
	}
	for _, s := range n.sandboxes {
		select {
		case <-s.killed:
			t.Error("a container without a limit was killed")
		default:
		}
	}
}

func (s *testSandbox) awaitKill(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-s.killed:
	case <-time.After(within):
		t.Error("a container that is over its limit runs on")
	}
}

func TestWatchMemoryIsNotHeldUpByAnotherPod(t *testing.T) {
	n := newWatchedNode(t, 2)
	n.sandboxes[0].hangs.Store(true)
	n.WatchMemory(n.pods[0])
	for n.sandboxes[0].asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	n.sandboxes[1].use.Store(testLimit + 1)
	n.WatchMemory(n.pods[1])
	n.sandboxes[1].awaitKill(t, 20*time.Second)
	if !n.container(1).Status().OOMKilled {
		t.Error("it is not on record why")
	}
	if n := n.sandboxes[0].asked.Load(); n != 1 {
		t.Errorf("a sandbox that does not answer was asked %d times at once", n)
	}
}

func TestWatchMemoryLooksAtOnce(t *testing.T) {
	n := newWatchedNode(t, 1)
	s := n.sandboxes[0]
	n.WatchMemory(n.pods[0])
	for s.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	setLimit(t, n.container(0), testLimit/2)
	n.WatchMemory(n.pods[0])
	s.awaitKill(t, slowLook/2)
}

func TestWatchMemoryBeginsAgain(t *testing.T) {
	n := newWatchedNode(t, 1)
	must(t, n.container(0).Transition(lifecycle.Ended, nil))
	n.WatchMemory(n.pods[0]) // of no running container
	n.mu.Lock()
	watching := n.watching
	n.mu.Unlock()
	if watching {
		t.Error("there is a watch of nothing")
	}
	w := n.simulated()
	w.run(longestLook)
	if !w.end() {
		t.Error("a watch does not end with the last container")
	}
	n.add("again")
	n.sandboxes[1].use.Store(testLimit + 1)
	n.WatchMemory(n.pods[1])
	n.mu.Lock()
	watching = n.watching
	n.mu.Unlock()
	if !watching {
		t.Error("there is no watch of a container that came later")
	}
}

// BenchmarkWatchMemory is a second of the watch of a hundred containers just below their
// limits, without what their sandboxes do to answer.
func BenchmarkWatchMemory(b *testing.B) {
	n := newWatchedNode(b, 100)
	w := n.simulated()
	w.run(time.Second)
	b.ReportAllocs()
	for b.Loop() {
		w.run(time.Second)
	}
}

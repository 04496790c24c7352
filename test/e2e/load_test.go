package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// load is a node full of pods, of two containers each.
type load struct {
	kit
	client *testenv.Client // whose requests are measured
	pods   []string
	ctrs   []string

	execs, looks, made atomic.Int64
}

// TestLoad fills a node with pods, 50 of them at once in the long form, which has
// 100. Then it does for as long as `make soak` says, or some seconds, what a
// kubelet does: a probe in each container each second, lists and statistics, and
// pods that come and go. No request may fail, no answer lack a pod, and after the
// second half the node must not consist of more than after the first.
func TestLoad(t *testing.T) {
	count, atOnce := 15, 15
	long, lasts := testenv.Soak(16 * time.Second)
	if long {
		count, atOnce = 100, 50
	}
	k := ownNode(t, testenv.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), lasts+10*time.Minute)
	defer cancel()
	k.ctx = ctx
	m := &meter{}
	l := &load{kit: k, client: m.client(k)}
	l.comeAndGo("first", 0) // what the first pod makes once for all stays
	k.must(k.env.MarkBaseline())
	empty := consumed(k)
	t.Log("empty: ", empty)

	for len(l.pods) < count {
		l.fill(min(atOnce, count-len(l.pods)))
	}
	l.ownAddresses()
	l.keepAsking(lasts / 2)
	half := consumed(k)
	t.Log("after one half: ", half)
	l.keepAsking(lasts / 2)
	full := flat(k, "after the second half", half)
	t.Log("after the second half: ", full)
	t.Logf("%d probes, %d looks, %d pods came and went", l.execs.Load(), l.looks.Load(), l.made.Load())

	l.empty()
	k.must(k.env.Audit(ctx))
	t.Log("empty again: ", flat(k, "after all pods", empty))
	m.report(t, k.env.Repo, long, map[string]any{
		"pods": count, "containers": 2 * count, "seconds": lasts.Seconds(), "date": time.Now().Format(time.DateOnly),
		"probes": l.execs.Load(), "empty": empty, "after one half": half, "after the second half": full,
	})
}

// fill runs n pods, all at once.
func (l *load) fill(n int) {
	l.Helper()
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(l.ctx)
	for i := range n {
		pod := l.env.PodConfig(fmt.Sprintf("load-%d", len(l.pods)+i))
		g.Go(func() error {
			id, err := l.client.RunPod(ctx, pod)
			if err != nil {
				return err
			}
			l.env.Client.Note(id)
			for _, name := range []string{"a", "b"} {
				c := l.shell(name, "echo up; exec sleep 100000")
				cid, err := l.client.RunContainer(ctx, id, pod, c)
				if err != nil {
					return err
				}
				l.env.Client.Note(id, cid)
				if _, err := testenv.WaitLog(ctx, testenv.LogPath(pod, c), "up"); err != nil {
					return err
				}
				mu.Lock()
				l.ctrs = append(l.ctrs, cid)
				mu.Unlock()
			}
			mu.Lock()
			l.pods = append(l.pods, id)
			mu.Unlock()
			return nil
		})
	}
	l.must(g.Wait())
}

// ownAddresses sees to it that no two pods have the same.
func (l *load) ownAddresses() {
	l.Helper()
	seen := map[string]string{}
	for _, id := range l.pods {
		ip, err := l.client.PodIP(l.ctx, id)
		l.must(err)
		if seen[ip] != "" {
			l.Errorf("pods %s and %s have the address %s", seen[ip], id, ip)
		}
		seen[ip] = id
	}
}

// keepAsking does what a kubelet does for so long, and returns when all requests
// are answered.
func (l *load) keepAsking(lasts time.Duration) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, lasts)
	defer cancel()
	var wg sync.WaitGroup
	every := func(period, offset time.Duration, f func()) {
		wg.Go(func() {
			time.Sleep(offset)
			for tick := time.NewTicker(period); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
					f()
				}
			}
		})
	}
	for i, id := range l.ctrs {
		every(time.Second, time.Duration(i)*time.Second/time.Duration(len(l.ctrs)), func() { l.probe(id) })
	}
	every(time.Second, 0, l.look)
	var n int
	every(2*time.Second, 0, func() { n++; l.comeAndGo("guest", n) })
	wg.Wait()
}

func (l *load) probe(id string) {
	l.execs.Add(1)
	out, err := l.client.Exec(l.ctx, id, "/bin/sh", "-c", "echo fine")
	if err != nil || out != "fine\n" {
		l.Errorf("probe of %s: %q, %v", id, out, err)
	}
}

// look asks for all that there is. Guests may be in the answers, too.
func (l *load) look() {
	l.looks.Add(1)
	rt := l.client.Runtime
	pods, err := rt.ListPodSandbox(l.ctx, &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}},
	})
	whole(l, "ready pods", err, l.pods, pods.GetItems(), (*runtimeapi.PodSandbox).GetId)
	ctrs, err := rt.ListContainers(l.ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}},
	})
	whole(l, "running containers", err, l.ctrs, ctrs.GetContainers(), (*runtimeapi.Container).GetId)
	cstats, err := rt.ListContainerStats(l.ctx, &runtimeapi.ListContainerStatsRequest{})
	whole(l, "statistics of containers", err, l.ctrs, cstats.GetStats(), func(s *runtimeapi.ContainerStats) string {
		if s.GetCpu().GetUsageCoreNanoSeconds() == nil || s.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
			return ""
		}
		return s.GetAttributes().GetId()
	})
	pstats, err := rt.ListPodSandboxStats(l.ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	whole(l, "statistics of pods", err, l.pods, pstats.GetStats(), func(s *runtimeapi.PodSandboxStats) string {
		if s.GetLinux().GetMemory().GetWorkingSetBytes().GetValue() == 0 || len(s.GetLinux().GetContainers()) != 2 {
			return ""
		}
		return s.GetAttributes().GetId()
	})
	if _, err := rt.Status(l.ctx, &runtimeapi.StatusRequest{}); err != nil {
		l.Errorf("status: %v", err)
	}
}

// whole complains when an answer lacks one of the ids.
func whole[T any](l *load, what string, err error, ids []string, answer []T, id func(T) string) {
	l.Helper()
	if err != nil {
		l.Errorf("%s: %v", what, err)
		return
	}
	have := map[string]bool{}
	for _, item := range answer {
		have[id(item)] = true
	}
	var lacks []string
	for _, want := range ids {
		if !have[want] {
			lacks = append(lacks, want)
		}
	}
	if len(lacks) > 0 {
		l.Errorf("%s: of %d there are %d lacking: %s", what, len(ids), len(lacks), strings.Join(lacks, " "))
	}
}

// comeAndGo runs a pod with a container that ends, and removes it.
func (l *load) comeAndGo(name string, attempt int) {
	l.made.Add(1)
	pod := l.env.PodConfig(name)
	pod.Metadata.Attempt = uint32(attempt)
	defer os.RemoveAll(pod.LogDirectory)
	id, err := l.client.RunPod(l.ctx, pod)
	if err != nil {
		l.Errorf("guest: %v", err)
		return
	}
	l.env.Client.Note(id)
	cid, err := l.client.RunContainer(l.ctx, id, pod, l.shell("short", "echo up"))
	if err == nil {
		_, err = l.client.WaitContainer(l.ctx, cid, runtimeapi.ContainerState_CONTAINER_EXITED)
	}
	if rerr := l.env.Client.RemovePod(l.ctx, id); err != nil || rerr != nil {
		l.Errorf("guest: %v, %v", err, rerr)
	}
}

// empty removes all pods, eight at a time as a kubelet does.
func (l *load) empty() {
	l.Helper()
	g, ctx := errgroup.WithContext(l.ctx)
	g.SetLimit(8)
	for _, id := range l.pods {
		g.Go(func() error {
			err := l.client.RemovePod(ctx, id)
			if err == nil {
				// Through the client that remembers it.
				err = l.env.Client.RemovePod(ctx, id)
			}
			return err
		})
	}
	l.must(g.Wait())
}

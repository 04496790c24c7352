// Package stats owns the statistics of pods and containers: samples of what they use,
// CRI's form of them, and the metrics that cAdvisor would have told. It changes nothing.
//
// What cannot be read is absent from an answer, and never 0: who reads counters would
// take that for a new beginning.
package stats

import (
	"context"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// How old a sample may be that is not taken anew. Usage comes from one call to each
// sandbox, the size of a writable layer from a walk over it, or a look at the file that
// it is; the inodes in that, and open descriptors, are counted by a program inside the
// sandbox.
const (
	maxUsageAge = time.Second
	maxLayerAge = 10 * time.Second
	maxCountAge = 30 * time.Second
)

// How long a look may take.
const (
	sandboxTimeout = 5 * time.Second
	layerTimeout   = time.Minute
)

// Collector answers with statistics of one daemon's pods. Its methods are safe for
// concurrent use.
type Collector struct {
	pods       *state.Registry
	resources  *resources.Controller
	layerUsage func(ctx context.Context, container string) (image.Usage, error)

	usage       *sampler[usage]                       // by pod
	layers      *sampler[*runtimeapi.FilesystemUsage] // by container
	inodes      *sampler[count[uint64]]               // by pod
	descriptors *sampler[count[engine.Descriptors]]   // by pod
}

// New makes a collector; its looks are of work, and end with that.
func New(pods *state.Registry, work *background.Group, resources *resources.Controller, images *image.Store) *Collector {
	pod := func(id string) bool { _, err := pods.FindPod(id); return err == nil }
	container := func(id string) bool { _, err := pods.FindContainer(id); return err == nil }
	return &Collector{
		pods: pods, resources: resources, layerUsage: images.RootfsUsage,
		usage:       newSampler[usage]("use", work, maxUsageAge, sandboxTimeout, pod),
		layers:      newSampler[*runtimeapi.FilesystemUsage]("layer", work, maxLayerAge, layerTimeout, container),
		inodes:      newSampler[count[uint64]]("inodes", work, maxCountAge, sandboxTimeout, pod),
		descriptors: newSampler[count[engine.Descriptors]]("descriptors", work, maxCountAge, sandboxTimeout, pod),
	}
}

// Forget drops the samples of a pod or container, after it was removed.
func (c *Collector) Forget(id string) {
	c.usage.forget(id)
	c.layers.forget(id)
	c.inodes.forget(id)
	c.descriptors.forget(id)
}

// usage is what a pod used.
type usage struct {
	time       time.Time
	group      *cgroup.Stats            // nil when it could not be read
	use        map[string]engine.Usage  // by container; nil when it could not be read
	rate       map[string]uint64        // container id, or "" for the pod: nanocores since the sample before
	interfaces []network.InterfaceUsage // nil when they could not be read
}

// pod returns what a pod used lately.
func (c *Collector) pod(w waiter, p *state.Pod) *usage {
	s := c.usage.get(w, p.ID(), anyFits, func(ctx context.Context, before *sample[usage]) (usage, bool) {
		u, whole := usageOf(ctx, p)
		c.resources.NotePeaks(u.use)
		if before != nil {
			u.rate = rates(&before.value, &u)
		}
		return u, whole
	})
	if s == nil {
		return &usage{time: time.Now()}
	}
	return &s.value
}

func usageOf(ctx context.Context, p *state.Pod) (u usage, whole bool) {
	u.time, whole = time.Now(), true
	if g := p.Group(); g != nil {
		s, err := g.Stats()
		if err == nil {
			u.group = &s
		} else {
			klog.V(2).InfoS("Failed to read the cgroup of a pod", "pod", p.ID(), "err", err)
			whole = false
		}
	}
	if sb := p.Sandbox(); sb != nil && p.Phase() == lifecycle.Ready {
		var err error
		if u.use, err = sb.Stats(ctx); err != nil {
			klog.V(2).InfoS("Failed to read the usage of a sandbox", "pod", p.ID(), "err", err)
			u.use, whole = nil, false
		}
	}
	if p.NetNS != "" { // else it is on the node's network, and has none of its own
		var err error
		if u.interfaces, err = network.Usage(p.NetNS); err != nil {
			klog.V(2).InfoS("Failed to read the network usage of a pod", "pod", p.ID(), "err", err)
			u.interfaces, whole = nil, false
		}
	}
	return u, whole
}

// rates is the use of the CPU between two samples, where both know it.
func rates(a, b *usage) map[string]uint64 {
	span := b.time.Sub(a.time)
	rate := map[string]uint64{}
	if a.group != nil && b.group != nil {
		rate[""] = nanocores(a.group.CPU, b.group.CPU, span)
	}
	for id, u := range b.use {
		if before, ok := a.use[id]; ok {
			rate[id] = nanocores(before.CPU, u.CPU, span)
		}
	}
	return rate
}

func nanocores(before, now, span time.Duration) uint64 {
	if now < before || span <= 0 {
		return 0
	}
	return uint64(float64(now-before) / span.Seconds())
}

// layer returns the size of a container's writable layer; nil when it is not known. A
// sandbox that has just not answered is not waited for a second time.
func (c *Collector) layer(w waiter, of *state.Container, answered bool) *runtimeapi.FilesystemUsage {
	id := of.ID()
	s := c.layers.get(w, id, anyFits, func(ctx context.Context, _ *sample[*runtimeapi.FilesystemUsage]) (*runtimeapi.FilesystemUsage, bool) {
		u, err := c.layerUsage(ctx, id)
		if err != nil {
			klog.V(2).InfoS("Failed to read the size of a writable layer", "container", id, "err", err)
			return nil, false
		}
		if answered && of.HasLayer() {
			if n, ok := c.inodesOf(waiter{ctx, ctx}, of.Pod)[id]; ok {
				u.Inodes = n
			}
		}
		return &runtimeapi.FilesystemUsage{
			Timestamp: u.Time.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: u.Mountpoint},
			UsedBytes: &runtimeapi.UInt64Value{Value: u.Bytes}, InodesUsed: &runtimeapi.UInt64Value{Value: u.Inodes},
		}, true
	})
	if s == nil {
		return nil
	}
	return s.value
}

// count is what a program in a sandbox counted, by container.
type count[T any] struct {
	asked []string // the containers that it was to count
	of    map[string]T
}

// inodesOf counts the inodes in the layers of the containers of a pod.
func (c *Collector) inodesOf(w waiter, p *state.Pod) map[string]uint64 {
	return counted(w, c.inodes, p, (*state.Container).HasLayer, engine.Counter.Inodes)
}

// descriptorsOf counts what the containers of a pod have open.
func (c *Collector) descriptorsOf(w waiter, p *state.Pod) map[string]engine.Descriptors {
	return counted(w, c.descriptors, p, func(*state.Container) bool { return true }, engine.Counter.Descriptors)
}

// counted counts something of the running containers of a pod that are chosen. What a
// program could not count is not asked for again before its time, however often somebody
// asks.
func counted[T any](w waiter, s *sampler[count[T]], p *state.Pod, chosen func(*state.Container) bool, ask func(engine.Counter, context.Context, []string) (map[string]T, error)) map[string]T {
	var ids []string
	for _, m := range p.Containers() {
		if m.Phase() == lifecycle.Running && chosen(m) {
			ids = append(ids, m.ID())
		}
	}
	coversAll := func(n count[T]) bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(n.asked, id) })
	}
	got := s.get(w, p.ID(), coversAll, func(ctx context.Context, _ *sample[count[T]]) (count[T], bool) {
		n := count[T]{asked: ids}
		sb, ok := p.Sandbox().(engine.Counter)
		if !ok || p.Phase() != lifecycle.Ready {
			return n, true
		}
		var err error
		if n.of, err = ask(sb, ctx, ids); err != nil {
			klog.V(2).InfoS("Failed to count within a sandbox", "what", s.what, "pod", p.ID(), "err", err)
			return n, false
		}
		return n, true
	})
	if got == nil {
		return nil
	}
	return got.value.of
}

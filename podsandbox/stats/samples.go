// Package stats owns the statistics of pods and containers: samples of what they use,
// CRI's form of them, and the metrics that cAdvisor would have told. It changes nothing.
package stats

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// How old an answer may be. Usage comes from one call to each sandbox, the size
// of a writable layer from a walk over it, or a look at the file that it is; the
// inodes in that, and open descriptors, are counted by a program inside the sandbox.
const (
	maxUsageAge = time.Second
	maxLayerAge = 10 * time.Second
	maxCountAge = 30 * time.Second
)

// collectParallel is how many sandboxes are asked at once.
const collectParallel = 8

// Collector answers with statistics of one daemon's pods. It keeps the last sample of
// each, taken by whoever asks first. Its methods are safe for concurrent use.
//
// Locks: mu guards the maps and is never held while a sample is taken.
type Collector struct {
	pods      *state.Registry
	resources *resources.Controller
	images    *image.Store

	mu sync.Mutex
	// +checklocks:mu
	samples map[string]*podSample
	// +checklocks:mu
	layers map[string]*layerSample
	// By pod.
	// +checklocks:mu
	inodes map[string]*countSample[uint64]
	// +checklocks:mu
	descriptors map[string]*countSample[engine.Descriptors]
}

// New makes a collector.
func New(pods *state.Registry, resources *resources.Controller, images *image.Store) *Collector {
	return &Collector{
		pods: pods, resources: resources, images: images,
		samples: map[string]*podSample{}, layers: map[string]*layerSample{},
		inodes: map[string]*countSample[uint64]{}, descriptors: map[string]*countSample[engine.Descriptors]{},
	}
}

// podSample is what one look at a pod gave.
type podSample struct {
	once  sync.Once
	time  time.Time
	group cgroup.Stats
	use   map[string]engine.Usage
	rate  map[string]uint64 // container id, or "" for the pod: nanocores since the sample before
	done  atomic.Bool       // the fields above may be read
	prev  *podSample        // nil once taken: one step back is enough, and no chain
}

type layerSample struct {
	once  sync.Once
	time  time.Time
	usage *runtimeapi.FilesystemUsage
}

// countSample is what a program in a sandbox counted, by container.
type countSample[T any] struct {
	once  sync.Once
	time  time.Time
	asked []string // the containers that it was to count
	count map[string]T
	done  atomic.Bool // the two fields above may be read
}

// fresh tells whether a sample answers for some containers. What could not be
// counted is not asked for again before its time, however often somebody asks.
func (s *countSample[T]) fresh(ids []string) bool {
	if s == nil {
		return false
	}
	age := time.Since(s.time)
	if s.done.Load() && age > maxUsageAge {
		for _, id := range ids {
			if !slices.Contains(s.asked, id) {
				return false
			}
		}
	}
	return age <= maxCountAge
}

// pod returns a sample that is at most maxUsageAge old. Callers at the same time
// share one look.
func (c *Collector) pod(ctx context.Context, p *state.Pod) *podSample {
	c.mu.Lock()
	s := c.samples[p.ID()]
	if s == nil || time.Since(s.time) > maxUsageAge {
		s = &podSample{time: time.Now(), prev: s}
		c.samples[p.ID()] = s
	}
	c.mu.Unlock()
	s.once.Do(func() {
		s.take(ctx, p)
		c.resources.NotePeaks(s.use)
	})
	return s
}

func (s *podSample) take(ctx context.Context, p *state.Pod) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if g := p.Group(); g != nil {
		var err error
		if s.group, err = g.Stats(); err != nil {
			klog.V(2).InfoS("Read the cgroup of a pod", "pod", p.ID(), "err", err)
		}
	}
	if sb := p.Sandbox(); sb != nil && p.Phase() == lifecycle.Ready {
		var err error
		if s.use, err = sb.Stats(ctx); err != nil {
			klog.V(2).InfoS("Read the usage of a sandbox", "pod", p.ID(), "err", err)
		}
	}
	if s.prev != nil && s.prev.done.Load() {
		s.rate = rates(s.prev, s)
	}
	s.prev = nil
	s.done.Store(true)
}

// rates is the use of the CPU between two samples.
func rates(a, b *podSample) map[string]uint64 {
	span := b.time.Sub(a.time)
	rate := map[string]uint64{"": nanocores(a.group.CPU, b.group.CPU, span)}
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

// layer returns the size of a container's writable layer. A sandbox that has just not
// answered is not waited for a second time.
func (c *Collector) layer(ctx context.Context, of *state.Container, answered bool) *runtimeapi.FilesystemUsage {
	id := of.ID()
	c.mu.Lock()
	s := c.layers[id]
	if s == nil || time.Since(s.time) > maxLayerAge {
		s = &layerSample{time: time.Now()}
		c.layers[id] = s
	}
	c.mu.Unlock()
	s.once.Do(func() {
		u, err := c.images.RootfsUsage(ctx, id)
		if err != nil {
			klog.V(2).InfoS("Read the size of a writable layer", "container", id, "err", err)
			return
		}
		if answered && of.HasLayer() {
			if n, ok := c.inodesOf(ctx, of.Pod)[id]; ok {
				u.Inodes = n
			}
		}
		s.usage = &runtimeapi.FilesystemUsage{
			Timestamp: u.Time.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: u.Mountpoint},
			UsedBytes: &runtimeapi.UInt64Value{Value: u.Bytes}, InodesUsed: &runtimeapi.UInt64Value{Value: u.Inodes},
		}
	})
	return s.usage
}

// inodesOf counts the inodes in the layers of the containers of a pod.
func (c *Collector) inodesOf(ctx context.Context, p *state.Pod) map[string]uint64 {
	var ids []string
	for _, m := range p.Containers() {
		if m.Phase() == lifecycle.Running && m.HasLayer() {
			ids = append(ids, m.ID())
		}
	}
	c.mu.Lock()
	s := sampleOf(c.inodes, p, ids)
	c.mu.Unlock()
	return s.take(ctx, p, ids, engine.Counter.Inodes)
}

// descriptorsOf counts what the containers of a pod have open.
func (c *Collector) descriptorsOf(ctx context.Context, p *state.Pod) map[string]engine.Descriptors {
	var ids []string
	for _, m := range p.Containers() {
		if m.Phase() == lifecycle.Running {
			ids = append(ids, m.ID())
		}
	}
	c.mu.Lock()
	s := sampleOf(c.descriptors, p, ids)
	c.mu.Unlock()
	return s.take(ctx, p, ids, engine.Counter.Descriptors)
}

// sampleOf returns the pod's sample, a new one where the last does not answer for
// these containers. The caller holds the collector's mutex.
func sampleOf[T any](samples map[string]*countSample[T], p *state.Pod, ids []string) *countSample[T] {
	s := samples[p.ID()]
	if !s.fresh(ids) {
		s = &countSample[T]{time: time.Now()}
		samples[p.ID()] = s
	}
	return s
}

func (s *countSample[T]) take(ctx context.Context, p *state.Pod, ids []string, count func(engine.Counter, context.Context, []string) (map[string]T, error)) map[string]T {
	s.once.Do(func() {
		defer s.done.Store(true)
		s.asked = ids
		sb, ok := p.Sandbox().(engine.Counter)
		if !ok || p.Phase() != lifecycle.Ready {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var err error
		if s.count, err = count(sb, ctx, ids); err != nil {
			klog.V(2).InfoS("Count within a sandbox", "pod", p.ID(), "err", err)
		}
	})
	return s.count
}

// Forget drops the samples of a removed pod or container.
func (c *Collector) Forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.samples, id)
	delete(c.layers, id)
	delete(c.inodes, id)
	delete(c.descriptors, id)
}

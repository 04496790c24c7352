package podsandbox

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
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

// collector keeps the last sample of each pod, taken by whoever asks first. Its
// mutex guards the maps and is never held while a sample is taken.
type collector struct {
	manager *Manager

	mu     sync.Mutex
	pods   map[string]*podSample
	layers map[string]*layerSample
	peaks  map[string]uint64 // by container, see notePeaks

	// by pod
	inodes      map[string]*countSample[uint64]
	descriptors map[string]*countSample[engine.Descriptors]
}

// notePeaks is told of every look at the memory of containers. A sandbox keeps no
// maximum of a container, so what is known of one is the largest use that anybody has
// seen: whoever asks for statistics, and the memory watch, which looks the more often
// the nearer a container is to its limit. It begins anew with the daemon.
func (c *collector) notePeaks(use map[string]engine.Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peaks == nil {
		c.peaks = map[string]uint64{}
	}
	for id, u := range use {
		c.peaks[id] = max(c.peaks[id], u.MemoryBytes)
	}
}

func (c *collector) peak(id string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peaks[id]
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
func (c *collector) pod(ctx context.Context, p *pod) *podSample {
	c.mu.Lock()
	if c.pods == nil {
		c.pods, c.layers = map[string]*podSample{}, map[string]*layerSample{}
		c.inodes, c.descriptors = map[string]*countSample[uint64]{}, map[string]*countSample[engine.Descriptors]{}
	}
	s := c.pods[p.id()]
	if s == nil || time.Since(s.time) > maxUsageAge {
		s = &podSample{time: time.Now(), prev: s}
		c.pods[p.id()] = s
	}
	c.mu.Unlock()
	s.once.Do(func() {
		s.take(ctx, p)
		c.notePeaks(s.use)
	})
	return s
}

func (s *podSample) take(ctx context.Context, p *pod) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if g := p.getGroup(); g != nil {
		var err error
		if s.group, err = g.Stats(); err != nil {
			klog.V(2).InfoS("Read the cgroup of a pod", "pod", p.id(), "err", err)
		}
	}
	if sb := p.getSandbox(); sb != nil && p.phase() == lifecycle.Ready {
		var err error
		if s.use, err = sb.Stats(ctx); err != nil {
			klog.V(2).InfoS("Read the usage of a sandbox", "pod", p.id(), "err", err)
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
func (c *collector) layer(ctx context.Context, of *container, answered bool) *runtimeapi.FilesystemUsage {
	id := of.id()
	c.mu.Lock()
	s := c.layers[id]
	if s == nil || time.Since(s.time) > maxLayerAge {
		s = &layerSample{time: time.Now()}
		c.layers[id] = s
	}
	c.mu.Unlock()
	s.once.Do(func() {
		u, err := c.manager.opts.Images.RootfsUsage(ctx, id)
		if err != nil {
			klog.V(2).InfoS("Read the size of a writable layer", "container", id, "err", err)
			return
		}
		if answered && of.hasLayer() {
			if n, ok := c.inodesOf(ctx, of.pod)[id]; ok {
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
func (c *collector) inodesOf(ctx context.Context, p *pod) map[string]uint64 {
	var ids []string
	for _, m := range p.members() {
		if m.phase() == lifecycle.Running && m.hasLayer() {
			ids = append(ids, m.id())
		}
	}
	c.mu.Lock()
	s := sampleOf(c.inodes, p, ids)
	c.mu.Unlock()
	return s.take(ctx, p, ids, engine.Sandbox.Inodes)
}

// descriptorsOf counts what the containers of a pod have open.
func (c *collector) descriptorsOf(ctx context.Context, p *pod) map[string]engine.Descriptors {
	var ids []string
	for _, m := range p.members() {
		if m.phase() == lifecycle.Running {
			ids = append(ids, m.id())
		}
	}
	c.mu.Lock()
	s := sampleOf(c.descriptors, p, ids)
	c.mu.Unlock()
	return s.take(ctx, p, ids, engine.Sandbox.Descriptors)
}

// sampleOf returns the pod's sample, a new one where the last does not answer for
// these containers. The caller holds the collector's mutex.
func sampleOf[T any](samples map[string]*countSample[T], p *pod, ids []string) *countSample[T] {
	s := samples[p.id()]
	if !s.fresh(ids) {
		s = &countSample[T]{time: time.Now()}
		samples[p.id()] = s
	}
	return s
}

func (s *countSample[T]) take(ctx context.Context, p *pod, ids []string, count func(engine.Sandbox, context.Context, []string) (map[string]T, error)) map[string]T {
	s.once.Do(func() {
		defer s.done.Store(true)
		s.asked = ids
		sb := p.getSandbox()
		if sb == nil || p.phase() != lifecycle.Ready {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var err error
		if s.count, err = count(sb, ctx, ids); err != nil {
			klog.V(2).InfoS("Count within a sandbox", "pod", p.id(), "err", err)
		}
	})
	return s.count
}

// forget drops the samples of a removed pod or container.
func (c *collector) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, id)
	delete(c.layers, id)
	delete(c.inodes, id)
	delete(c.descriptors, id)
	delete(c.peaks, id)
}

// ContainerStats reports the use of one container.
func (m *Manager) ContainerStats(ctx context.Context, id string) (*runtimeapi.ContainerStats, error) {
	c, err := m.findContainer(id)
	if err != nil {
		return nil, err
	}
	return m.containerStats(ctx, c, m.stats.pod(ctx, c.pod)), nil
}

// ListContainerStats reports the use of the running containers that fit.
func (m *Manager) ListContainerStats(ctx context.Context, f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	var fit []*container
	for _, c := range m.allContainers() {
		if c.phase() == lifecycle.Running && strings.HasPrefix(c.id(), f.GetId()) &&
			strings.HasPrefix(c.pod.id(), f.GetPodSandboxId()) && selects(f.GetLabelSelector(), c.config().GetLabels()) {
			fit = append(fit, c)
		}
	}
	return inParallel(fit, func(c *container) *runtimeapi.ContainerStats {
		return m.containerStats(ctx, c, m.stats.pod(ctx, c.pod))
	})
}

// PodStats reports the use of one pod.
func (m *Manager) PodStats(ctx context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	p, err := m.findPod(id)
	if err != nil {
		return nil, err
	}
	return m.podStats(ctx, p), nil
}

// ListPodStats reports the use of the ready pods that fit.
func (m *Manager) ListPodStats(ctx context.Context, f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	var fit []*pod
	for _, p := range m.allPods() {
		if p.phase() == lifecycle.Ready && strings.HasPrefix(p.id(), f.GetId()) &&
			selects(f.GetLabelSelector(), p.config().GetLabels()) {
			fit = append(fit, p)
		}
	}
	return inParallel(fit, func(p *pod) *runtimeapi.PodSandboxStats { return m.podStats(ctx, p) })
}

func inParallel[T, R any](in []T, f func(T) R) []R {
	out := make([]R, len(in))
	var g errgroup.Group
	g.SetLimit(collectParallel)
	for i, v := range in {
		g.Go(func() error {
			out[i] = f(v)
			return nil
		})
	}
	g.Wait()
	return out
}

func (m *Manager) containerStats(ctx context.Context, c *container, s *podSample) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: c.id(), Metadata: c.config().GetMetadata(),
			Labels: c.config().GetLabels(), Annotations: c.config().GetAnnotations(),
		},
		WritableLayer: m.stats.layer(ctx, c, s.use != nil),
	}
	u, ok := s.use[c.id()]
	if !ok {
		return out
	}
	at := s.time.UnixNano()
	out.Cpu = &runtimeapi.CpuUsage{Timestamp: at,
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(u.CPU)},
		UsageNanoCores:       &runtimeapi.UInt64Value{Value: s.rate[c.id()]},
	}
	// The sandbox has no page cache of the container's that could be given back:
	// all of it is the working set.
	mem := &runtimeapi.UInt64Value{Value: u.MemoryBytes}
	out.Memory = &runtimeapi.MemoryUsage{Timestamp: at, WorkingSetBytes: mem, UsageBytes: mem, RssBytes: mem}
	if limit := uint64(max(c.resources().GetMemoryLimitInBytes(), 0)); limit > u.MemoryBytes {
		out.Memory.AvailableBytes = &runtimeapi.UInt64Value{Value: limit - u.MemoryBytes}
	}
	return out
}

func (m *Manager) podStats(ctx context.Context, p *pod) *runtimeapi.PodSandboxStats {
	s := m.stats.pod(ctx, p)
	at := s.time.UnixNano()
	linux := &runtimeapi.LinuxPodSandboxStats{
		Cpu: &runtimeapi.CpuUsage{Timestamp: at,
			UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(s.group.CPU)},
			UsageNanoCores:       &runtimeapi.UInt64Value{Value: s.rate[""]},
		},
		Memory: &runtimeapi.MemoryUsage{Timestamp: at,
			WorkingSetBytes: &runtimeapi.UInt64Value{Value: s.group.WorkingSet},
			UsageBytes:      &runtimeapi.UInt64Value{Value: s.group.MemoryUsage},
			RssBytes:        &runtimeapi.UInt64Value{Value: s.group.RSS},
			PageFaults:      &runtimeapi.UInt64Value{Value: s.group.PageFaults},
			MajorPageFaults: &runtimeapi.UInt64Value{Value: s.group.MajorPageFaults},
		},
		Network: m.networkUsage(p, at),
		Process: &runtimeapi.ProcessUsage{Timestamp: at, ProcessCount: &runtimeapi.UInt64Value{Value: processes(s)}},
	}
	if l := p.shownLimits().MemoryBytes; l > 0 {
		linux.Memory.AvailableBytes = &runtimeapi.UInt64Value{Value: uint64(l) - min(s.group.WorkingSet, uint64(l))}
	}
	for _, c := range p.members() {
		if c.phase() == lifecycle.Running {
			linux.Containers = append(linux.Containers, m.containerStats(ctx, c, s))
		}
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: p.id(), Metadata: p.config().GetMetadata(),
			Labels: p.config().GetLabels(), Annotations: p.config().GetAnnotations(),
		},
		Linux: linux,
	}
}

// interfaces is what passed the pod's interfaces. A pod on the node's network has
// none of its own.
func (m *Manager) interfaces(p *pod) []network.InterfaceUsage {
	if p.hostNetwork() {
		return nil
	}
	usages, err := network.Usage(m.paths.netns(p.id()))
	if err != nil {
		klog.V(2).InfoS("Read the network usage of a pod", "pod", p.id(), "err", err)
	}
	return usages
}

func (m *Manager) networkUsage(p *pod, at int64) *runtimeapi.NetworkUsage {
	usages := m.interfaces(p)
	if usages == nil {
		return nil
	}
	out := &runtimeapi.NetworkUsage{Timestamp: at}
	for _, u := range usages {
		ni := &runtimeapi.NetworkInterfaceUsage{
			Name:    u.Name,
			RxBytes: &runtimeapi.UInt64Value{Value: u.RxBytes}, RxErrors: &runtimeapi.UInt64Value{Value: u.RxErrors},
			TxBytes: &runtimeapi.UInt64Value{Value: u.TxBytes}, TxErrors: &runtimeapi.UInt64Value{Value: u.TxErrors},
		}
		if u.Name == network.DefaultInterface {
			out.DefaultInterface = ni
		}
		out.Interfaces = append(out.Interfaces, ni)
	}
	return out
}

// processes counts those inside the sandbox; the host sees only the Sentry's.
func processes(s *podSample) (n uint64) {
	for _, u := range s.use {
		n += u.Pids
	}
	return n
}

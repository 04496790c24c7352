package stats

import (
	"context"
	"strings"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// ContainerStats reports the use of one container.
func (c *Collector) ContainerStats(ctx context.Context, id string) (*runtimeapi.ContainerStats, error) {
	of, err := c.pods.FindContainer(id)
	if err != nil {
		return nil, err
	}
	w, done := newWaiter(ctx)
	defer done()
	return c.containerStats(w, of, c.pod(w, of.Pod)), nil
}

// ListContainerStats reports the use of the running containers that fit.
func (c *Collector) ListContainerStats(ctx context.Context, f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	var fit []*state.Container
	for _, of := range c.pods.Containers() {
		if of.Phase() == lifecycle.Running && strings.HasPrefix(of.ID(), f.GetId()) &&
			strings.HasPrefix(of.Pod.ID(), f.GetPodSandboxId()) && state.Selects(f.GetLabelSelector(), of.Config().GetLabels()) {
			fit = append(fit, of)
		}
	}
	w, done := newWaiter(ctx)
	defer done()
	return inParallel(fit, func(of *state.Container) *runtimeapi.ContainerStats {
		return c.containerStats(w, of, c.pod(w, of.Pod))
	})
}

// PodStats reports the use of one pod.
func (c *Collector) PodStats(ctx context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	p, err := c.pods.FindPod(id)
	if err != nil {
		return nil, err
	}
	w, done := newWaiter(ctx)
	defer done()
	return c.podStats(w, p), nil
}

// ListPodStats reports the use of the ready pods that fit.
func (c *Collector) ListPodStats(ctx context.Context, f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	var fit []*state.Pod
	for _, p := range c.pods.Pods() {
		if p.Phase() == lifecycle.Ready && strings.HasPrefix(p.ID(), f.GetId()) &&
			state.Selects(f.GetLabelSelector(), p.Config().GetLabels()) {
			fit = append(fit, p)
		}
	}
	w, done := newWaiter(ctx)
	defer done()
	return inParallel(fit, func(p *state.Pod) *runtimeapi.PodSandboxStats { return c.podStats(w, p) })
}

// inParallel waits for all at once: samples are taken by others, some at a time.
func inParallel[T, R any](in []T, f func(T) R) []R {
	out := make([]R, len(in))
	var g sync.WaitGroup
	for i, v := range in {
		g.Go(func() { out[i] = f(v) })
	}
	g.Wait()
	return out
}

func (c *Collector) containerStats(w waiter, of *state.Container, s *usage) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: of.ID(), Metadata: of.Config().GetMetadata(),
			Labels: of.Config().GetLabels(), Annotations: of.Config().GetAnnotations(),
		},
		WritableLayer: c.layer(w, of, s.use != nil),
	}
	u, ok := s.use[of.ID()]
	if !ok {
		return out
	}
	at := s.time.UnixNano()
	out.Cpu = &runtimeapi.CpuUsage{Timestamp: at,
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(u.CPU)},
		UsageNanoCores:       s.rateOf(of.ID()),
	}
	// The sandbox has no page cache of the container's that could be given back:
	// all of it is the working set.
	mem := &runtimeapi.UInt64Value{Value: u.MemoryBytes}
	out.Memory = &runtimeapi.MemoryUsage{Timestamp: at, WorkingSetBytes: mem, UsageBytes: mem, RssBytes: mem}
	if limit := uint64(max(of.Resources().GetMemoryLimitInBytes(), 0)); limit > u.MemoryBytes {
		out.Memory.AvailableBytes = &runtimeapi.UInt64Value{Value: limit - u.MemoryBytes}
	}
	return out
}

// rateOf is nil when it is not known, as of the first sample.
func (u *usage) rateOf(id string) *runtimeapi.UInt64Value {
	rate, ok := u.rate[id]
	if !ok {
		return nil
	}
	return &runtimeapi.UInt64Value{Value: rate}
}

func (c *Collector) podStats(w waiter, p *state.Pod) *runtimeapi.PodSandboxStats {
	s := c.pod(w, p)
	linux := &runtimeapi.LinuxPodSandboxStats{Network: s.network()}
	s.addGroupStats(linux, resources.ShownLimits(p).MemoryBytes)
	if s.use != nil {
		linux.Process = &runtimeapi.ProcessUsage{Timestamp: s.time.UnixNano(), ProcessCount: &runtimeapi.UInt64Value{Value: s.processes()}}
	}
	for _, of := range p.Containers() {
		if of.Phase() == lifecycle.Running {
			linux.Containers = append(linux.Containers, c.containerStats(w, of, s))
		}
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: p.ID(), Metadata: p.Config().GetMetadata(),
			Labels: p.Config().GetLabels(), Annotations: p.Config().GetAnnotations(),
		},
		Linux: linux,
	}
}

// addGroupStats adds what the host counts of a pod with a memory limit, if there is one.
func (u *usage) addGroupStats(to *runtimeapi.LinuxPodSandboxStats, limit int64) {
	g, at := u.group, u.time.UnixNano()
	if g == nil {
		return
	}
	to.Cpu = &runtimeapi.CpuUsage{Timestamp: at,
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(g.CPU)},
		UsageNanoCores:       u.rateOf(""),
	}
	to.Memory = &runtimeapi.MemoryUsage{Timestamp: at,
		WorkingSetBytes: &runtimeapi.UInt64Value{Value: g.WorkingSet},
		UsageBytes:      &runtimeapi.UInt64Value{Value: g.MemoryUsage},
		RssBytes:        &runtimeapi.UInt64Value{Value: g.RSS},
		PageFaults:      &runtimeapi.UInt64Value{Value: g.PageFaults},
		MajorPageFaults: &runtimeapi.UInt64Value{Value: g.MajorPageFaults},
	}
	if limit > 0 {
		to.Memory.AvailableBytes = &runtimeapi.UInt64Value{Value: uint64(limit) - min(g.WorkingSet, uint64(limit))}
	}
}

func (u *usage) network() *runtimeapi.NetworkUsage {
	if u.interfaces == nil {
		return nil
	}
	out := &runtimeapi.NetworkUsage{Timestamp: u.time.UnixNano()}
	for _, i := range u.interfaces {
		ni := &runtimeapi.NetworkInterfaceUsage{
			Name:    i.Name,
			RxBytes: &runtimeapi.UInt64Value{Value: i.RxBytes}, RxErrors: &runtimeapi.UInt64Value{Value: i.RxErrors},
			TxBytes: &runtimeapi.UInt64Value{Value: i.TxBytes}, TxErrors: &runtimeapi.UInt64Value{Value: i.TxErrors},
		}
		if i.Name == network.DefaultInterface {
			out.DefaultInterface = ni
		}
		out.Interfaces = append(out.Interfaces, ni)
	}
	return out
}

// processes counts those inside the sandbox; the host sees only the Sentry's.
func (u *usage) processes() (n uint64) {
	for _, of := range u.use {
		n += of.Pids
	}
	return n
}

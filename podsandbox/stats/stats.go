package stats

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

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
	return c.containerStats(ctx, of, c.pod(ctx, of.Pod)), nil
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
	return inParallel(fit, func(of *state.Container) *runtimeapi.ContainerStats {
		return c.containerStats(ctx, of, c.pod(ctx, of.Pod))
	})
}

// PodStats reports the use of one pod.
func (c *Collector) PodStats(ctx context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	p, err := c.pods.FindPod(id)
	if err != nil {
		return nil, err
	}
	return c.podStats(ctx, p), nil
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
	return inParallel(fit, func(p *state.Pod) *runtimeapi.PodSandboxStats { return c.podStats(ctx, p) })
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
	_ = g.Wait() // its functions return no error
	return out
}

func (c *Collector) containerStats(ctx context.Context, of *state.Container, s *podSample) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: of.ID(), Metadata: of.Config().GetMetadata(),
			Labels: of.Config().GetLabels(), Annotations: of.Config().GetAnnotations(),
		},
		WritableLayer: c.layer(ctx, of, s.use != nil),
	}
	u, ok := s.use[of.ID()]
	if !ok {
		return out
	}
	at := s.time.UnixNano()
	out.Cpu = &runtimeapi.CpuUsage{Timestamp: at,
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(u.CPU)},
		UsageNanoCores:       &runtimeapi.UInt64Value{Value: s.rate[of.ID()]},
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

func (c *Collector) podStats(ctx context.Context, p *state.Pod) *runtimeapi.PodSandboxStats {
	s := c.pod(ctx, p)
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
		Network: networkUsage(p, at),
		Process: &runtimeapi.ProcessUsage{Timestamp: at, ProcessCount: &runtimeapi.UInt64Value{Value: processes(s)}},
	}
	if l := resources.ShownLimits(p).MemoryBytes; l > 0 {
		linux.Memory.AvailableBytes = &runtimeapi.UInt64Value{Value: uint64(l) - min(s.group.WorkingSet, uint64(l))}
	}
	for _, of := range p.Containers() {
		if of.Phase() == lifecycle.Running {
			linux.Containers = append(linux.Containers, c.containerStats(ctx, of, s))
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

// interfaces is what passed the pod's interfaces. A pod on the node's network has
// none of its own.
func interfaces(p *state.Pod) []network.InterfaceUsage {
	if p.NetNS == "" {
		return nil
	}
	usages, err := network.Usage(p.NetNS)
	if err != nil {
		klog.V(2).InfoS("Read the network usage of a pod", "pod", p.ID(), "err", err)
	}
	return usages
}

func networkUsage(p *state.Pod, at int64) *runtimeapi.NetworkUsage {
	usages := interfaces(p)
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

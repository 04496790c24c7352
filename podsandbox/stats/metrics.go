package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// ListPodMetrics reports the metrics of all ready pods and their containers.
func (c *Collector) ListPodMetrics(ctx context.Context) []*runtimeapi.PodSandboxMetrics {
	var ready []*state.Pod
	for _, p := range c.pods.Pods() {
		if p.Phase() == lifecycle.Ready {
			ready = append(ready, p)
		}
	}
	w, done := newWaiter(ctx)
	defer done()
	return inParallel(ready, func(p *state.Pod) *runtimeapi.PodSandboxMetrics { return c.podMetrics(w, p) })
}

func (c *Collector) podMetrics(w waiter, p *state.Pod) *runtimeapi.PodSandboxMetrics {
	sample := c.pod(w, p)
	md := p.Config().GetMetadata()
	s := &series{
		at:   sample.time.UnixNano(),
		base: []string{"", p.ID(), "", p.ID(), md.GetNamespace(), md.GetName()},
	}
	s.addTimes(sample.time, p.Meta.CreatedAt)
	if sample.group != nil {
		s.addGroup(sample.group)
		s.addGroupDetail(p)
	}
	s.addInterfaces(sample.interfaces)
	limits := resources.ShownLimits(p)
	s.addSpec(&runtimeapi.LinuxContainerResources{
		CpuPeriod: int64(limits.CPUPeriod), CpuQuota: limits.CPUQuota, CpuShares: int64(limits.CPUShares), MemoryLimitInBytes: limits.MemoryBytes,
	})
	var open map[string]engine.Descriptors
	if sample.use != nil { // one that has just not answered is not waited for again
		s.addProcesses(sample.processes())
		open = c.descriptorsOf(w, p)
		s.addDescriptors(sum(open, sample.use))
	}
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: p.ID(), Metrics: s.out}
	for _, of := range p.Containers() {
		if !state.Hidden(of.Phase()) {
			out.ContainerMetrics = append(out.ContainerMetrics, c.containerMetrics(w, of, sample, open))
		}
	}
	return out
}

// containerMetrics of one that does not run tell only when it did, and whether it
// ended for want of memory.
func (c *Collector) containerMetrics(w waiter, of *state.Container, sample *usage, open map[string]engine.Descriptors) *runtimeapi.ContainerMetrics {
	cfg, pod, st := of.Config(), of.Pod.Config().GetMetadata(), of.Status()
	image := cfg.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = cfg.GetImage().GetImage()
	}
	s := &series{
		at:   sample.time.UnixNano(),
		base: []string{cfg.GetMetadata().GetName(), of.ID(), image, of.ID(), pod.GetNamespace(), pod.GetName()},
	}
	var kills uint64
	if st.OOMKilled || st.Reason == state.ReasonOOMKilled {
		kills = 1
	}
	s.add(oomEvents, kills)
	s.addTimes(sample.time, st.StartedAt)
	if use, ok := sample.use[of.ID()]; ok && st.Phase == lifecycle.Running {
		s.addUsage(use)
		s.add(memoryPeak, max(c.resources.Peak(of.ID()), use.MemoryBytes))
		s.addProcesses(use.Pids)
		d, counted := open[of.ID()]
		s.addDescriptors(d, counted)
		s.addSpec(of.Resources())
		s.add(ulimitsSoft, spec.OpenFiles, "max_open_files")
	}
	s.addLayer(c.layer(w, of, sample.use != nil))
	return &runtimeapi.ContainerMetrics{ContainerId: of.ID(), Metrics: s.out}
}

func (s *series) addTimes(seen time.Time, started int64) {
	s.add(lastSeen, uint64(seen.Unix()))
	if started > 0 {
		s.add(startTime, uint64(started/int64(time.Second)))
	}
}

// addUsage is what the sandbox knows of a container. All its memory counts as
// anonymous: it has no cache that the host could take back, and no swap.
func (s *series) addUsage(u engine.Usage) {
	s.addCPU(u.CPU, u.CPUUser, u.CPUSystem)
	for _, m := range []*metric{memoryUsage, memoryWorkingSet, memoryRSS} {
		s.add(m, u.MemoryBytes)
	}
	for _, m := range []*metric{memoryCache, memoryMappedFile, memorySwap, memoryLimitHits} {
		s.add(m, 0)
	}
}

func (s *series) addCPU(all, user, system time.Duration) {
	s.add(cpuUsage, uint64(all/time.Second))
	s.add(cpuUser, uint64(user/time.Second))
	s.add(cpuSystem, uint64(system/time.Second))
}

// addGroup is what the host counts of a pod, the sandbox itself included.
func (s *series) addGroup(g *cgroup.Stats) {
	s.addCPU(g.CPU, g.CPUUser, g.CPUSystem)
	s.add(memoryUsage, g.MemoryUsage)
	s.add(memoryWorkingSet, g.WorkingSet)
	s.add(memoryRSS, g.RSS)
	s.add(memoryFaults, g.PageFaults, "pgfault", "hierarchy")
	s.add(memoryFaults, g.MajorPageFaults, "pgmajfault", "hierarchy")
	s.add(oomEvents, g.OOMKills)
}

func (s *series) addGroupDetail(p *state.Pod) {
	g := p.Group()
	if g == nil {
		return
	}
	d, err := g.Detail()
	if err != nil {
		klog.V(2).InfoS("Failed to read the cgroup of a pod in detail", "pod", p.ID(), "err", err)
		return
	}
	s.add(memoryCache, d.Cache)
	s.add(memoryMappedFile, d.MappedFile)
	s.add(memorySwap, d.Swap)
	s.add(memoryKernel, d.Kernel)
	s.add(memoryPeak, d.PeakUsage)
	s.add(memoryActiveFile, d.ActiveFile)
	s.add(memoryInactiveFile, d.InactiveFile)
	s.add(memoryLimitHits, d.LimitHits)
	s.add(cpuPeriods, d.Periods)
	s.add(cpuThrottledPeriods, d.ThrottledPeriods)
	s.add(cpuThrottledTime, uint64(d.ThrottledTime/time.Second))
	for _, io := range d.IO {
		major, minor := strconv.FormatUint(io.Major, 10), strconv.FormatUint(io.Minor, 10)
		device := deviceName(major, minor)
		s.add(fsReadBytes, io.ReadBytes, device)
		s.add(fsReads, io.Reads, device)
		s.add(fsWrittenBytes, io.WrittenBytes, device)
		s.add(fsWrites, io.Writes, device)
		s.add(blkioUsage, io.ReadBytes, device, major, minor, "Read")
		s.add(blkioUsage, io.WrittenBytes, device, major, minor, "Write")
	}
}

// deviceName is the path of a block device; sysfs links its numbers to its name.
func deviceName(major, minor string) string {
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%s:%s", major, minor))
	if err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(link)
}

func (s *series) addInterfaces(interfaces []network.InterfaceUsage) {
	for _, i := range interfaces {
		s.add(netRxBytes, i.RxBytes, i.Name)
		s.add(netRxPackets, i.RxPackets, i.Name)
		s.add(netRxDropped, i.RxDropped, i.Name)
		s.add(netRxErrors, i.RxErrors, i.Name)
		s.add(netTxBytes, i.TxBytes, i.Name)
		s.add(netTxPackets, i.TxPackets, i.Name)
		s.add(netTxDropped, i.TxDropped, i.Name)
		s.add(netTxErrors, i.TxErrors, i.Name)
	}
}

func (s *series) addProcesses(n uint64) {
	s.add(processCount, n)
	s.add(threadCount, n)
	s.add(threadLimit, 0)
}

func (s *series) addDescriptors(d engine.Descriptors, counted bool) {
	if counted {
		s.add(openFiles, d.Open)
		s.add(openSockets, d.Sockets)
	}
}

// sum is what a pod's containers have open; not counted unless each is.
func sum(open map[string]engine.Descriptors, use map[string]engine.Usage) (all engine.Descriptors, counted bool) {
	for id := range use {
		d, ok := open[id]
		if !ok {
			return engine.Descriptors{}, false
		}
		all.Open += d.Open
		all.Sockets += d.Sockets
	}
	return all, true
}

func (s *series) addSpec(r *runtimeapi.LinuxContainerResources) {
	period := r.GetCpuPeriod()
	if period <= 0 {
		period = resources.DefaultCPUPeriod
	}
	s.add(specCPUPeriod, uint64(period))
	if q := r.GetCpuQuota(); q > 0 {
		s.add(specCPUQuota, uint64(q))
	}
	s.add(specCPUShares, uint64(max(r.GetCpuShares(), 0)))
	s.add(specMemoryLimit, uint64(max(r.GetMemoryLimitInBytes(), 0)))
	s.add(specMemoryReservation, 0)
	s.add(specSwapLimit, uint64(max(r.GetMemorySwapLimitInBytes(), 0)))
}

// addLayer is the writable layer, on the device "/" as the container sees it.
func (s *series) addLayer(u *runtimeapi.FilesystemUsage) {
	if u == nil {
		return
	}
	const device = "/"
	s.add(fsUsage, u.GetUsedBytes().GetValue(), device)
	var st unix.Statfs_t
	if err := unix.Statfs(u.GetFsId().GetMountpoint(), &st); err != nil {
		return
	}
	s.add(fsLimit, st.Blocks*uint64(st.Bsize), device)
	s.add(fsInodes, st.Files, device)
	s.add(fsInodesFree, st.Ffree, device)
}

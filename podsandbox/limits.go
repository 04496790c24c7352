package podsandbox

import (
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
)

const (
	// sandboxMemory is left for the sandbox process, its file servers and what a
	// container eats until the memory watch sees it, where the caller states no
	// overhead: it is charged to the pod's cgroup, too. Without it the kernel
	// would kill the whole pod before one container reaches its own limit.
	sandboxMemory = 64 << 20

	// defaultPeriod is the kernel's, in microseconds.
	defaultPeriod = 100_000

	// maxShares is the most that cpu.shares takes.
	maxShares = 262_144
)

// podLimits are those of the pod's cgroup, each of them by the first rule that
// says something:
//
//  1. what the caller states for the pod as a whole, and its overhead;
//  2. the sum over the pod's containers, if every one is limited, and the overhead;
//  3. none. The cgroup above may have one, which holds all the same.
//
// The kubelet states the first, and sets the same on the cgroup above. The
// result is total: a limit that does not exist any more is taken off.
func podLimits(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources) cgroup.Limits {
	quota, period := cpuLimit(pod, overhead, containers)
	return cgroup.Limits{
		CPUShares: cpuShares(pod, containers), CPUQuota: quota, CPUPeriod: period,
		MemoryBytes: memoryLimit(pod, overhead, containers),
		CpusetCpus:  cpuset(pod, containers, (*runtimeapi.LinuxContainerResources).GetCpusetCpus),
		CpusetMems:  cpuset(pod, containers, (*runtimeapi.LinuxContainerResources).GetCpusetMems),
		Unified:     pod.GetUnified(),
	}
}

// memoryLimit is in bytes, or -1.
func memoryLimit(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources) int64 {
	extra := max(overhead.GetMemoryLimitInBytes(), 0)
	if l := pod.GetMemoryLimitInBytes(); l > 0 {
		return l + extra
	}
	if extra == 0 {
		extra = sandboxMemory
	}
	sum, all := total(containers, func(r *runtimeapi.LinuxContainerResources) int64 { return r.GetMemoryLimitInBytes() })
	if !all {
		return -1
	}
	return sum + extra
}

// cpuLimit is a quota and its period in microseconds; a quota of -1 is none, and
// needs no period.
func cpuLimit(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources) (quota int64, period uint64) {
	period = defaultPeriod
	if p := pod.GetCpuPeriod(); p > 0 {
		period = uint64(p)
	}
	in := func(r *runtimeapi.LinuxContainerResources) int64 { return quotaIn(r, period) }
	switch {
	case pod.GetCpuQuota() < 0:
		return -1, 0
	case pod.GetCpuQuota() > 0:
		return pod.GetCpuQuota() + in(overhead), period
	}
	sum, all := total(containers, in)
	if !all {
		return -1, 0
	}
	return sum + in(overhead), period
}

// quotaIn is a quota as it would be in another period, or 0 without one.
func quotaIn(r *runtimeapi.LinuxContainerResources, period uint64) int64 {
	own := uint64(max(r.GetCpuPeriod(), 0))
	if own == 0 {
		own = defaultPeriod
	}
	return int64(float64(max(r.GetCpuQuota(), 0)) * float64(period) / float64(own))
}

// cpuShares are 0, which leaves what the cgroup has, where not all are known.
func cpuShares(pod *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources) uint64 {
	shares := pod.GetCpuShares()
	if shares <= 0 {
		sum, all := total(containers, (*runtimeapi.LinuxContainerResources).GetCpuShares)
		if !all {
			return 0
		}
		shares = sum
	}
	return uint64(min(shares, maxShares))
}

// cpuset unites the sets of the containers, which share the sandbox's threads.
// It is empty, which leaves what the cgroup has, when one of them has none.
func cpuset(pod *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources, get func(*runtimeapi.LinuxContainerResources) string) string {
	if s := get(pod); s != "" {
		return s
	}
	var sets []string
	for _, r := range containers {
		if get(r) == "" {
			return ""
		}
		sets = append(sets, get(r))
	}
	slices.Sort(sets)
	return strings.Join(slices.Compact(sets), ",")
}

// total adds one value of every container, and tells whether there are any and
// all have one.
func total(containers []*runtimeapi.LinuxContainerResources, get func(*runtimeapi.LinuxContainerResources) int64) (sum int64, all bool) {
	for _, r := range containers {
		v := get(r)
		if v <= 0 {
			return 0, false
		}
		sum += v
	}
	return sum, len(containers) > 0
}

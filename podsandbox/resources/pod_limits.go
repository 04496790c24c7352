package resources

import (
	"math"
	"math/bits"
	"path"
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

	// DefaultCPUPeriod is the kernel's, in microseconds.
	DefaultCPUPeriod = 100_000

	// maxShares is the most that cpu.shares takes.
	maxShares = 262_144

	// maxQuota is the most that the kernel takes for a CPU quota, in microseconds
	// (MAX_BW in its scheduler): months of CPU time in each period, so no limit at all.
	maxQuota = 1<<44 - 1
)

// bounds are the limits that a cgroup above has or passes on: memory in bytes, quota
// and period in microseconds. 0 is none.
type bounds struct {
	memory, quota int64
	period        uint64
}

// above is what holds a pod whatever its own cgroup has.
type above struct {
	// podsOwn tells that the cgroup's parent is this pod's alone, and its maker's to
	// size.
	podsOwn bool
	parent  bounds // what the parent itself has
	ceiling bounds // what the parent and all above it leave
}

// podLimits are those of the pod's cgroup. What holds the pod above is not repeated:
// on cgroup v1 it could neither be raised by its owner's order of doing things, nor
// lowered. So memory and CPU quota have no limit here where the parent is the pod's
// own, as the kubelet's is, or holds it as tightly. Else each has the limit of the
// first rule that says something:
//
//  1. what the caller states for the pod as a whole, and its overhead, if that can be
//     true: the parent has a limit, or every container. The kubelet states the sum of
//     those containers that are limited (kubernetes#140810);
//  2. the sum over the pod's containers, if every one is limited, and the overhead;
//  3. none.
//
// The result is total: a limit that does not exist any more is taken off.
func podLimits(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources, up above) cgroup.Limits {
	l := cgroup.Limits{
		CPUShares:   cpuShares(pod, containers),
		CPUQuota:    -1,
		MemoryBytes: -1,
		CpusetCpus:  cpuset(pod, containers, (*runtimeapi.LinuxContainerResources).GetCpusetCpus),
		CpusetMems:  cpuset(pod, containers, (*runtimeapi.LinuxContainerResources).GetCpusetMems),
		Unified:     pod.GetUnified(),
	}
	if up.podsOwn {
		return l
	}
	if m := memoryLimit(pod, overhead, containers, up.parent.memory > 0); up.ceiling.memory == 0 || m < up.ceiling.memory {
		l.MemoryBytes = m
	}
	if q, p := cpuLimit(pod, overhead, containers, up.parent.quota > 0); up.ceiling.quota == 0 || cpus(q, p) < cpus(up.ceiling.quota, up.ceiling.period) {
		l.CPUQuota, l.CPUPeriod = q, p
	}
	return l
}

// cpus is how many of them a quota stands for.
func cpus(quota int64, period uint64) float64 { return float64(quota) / float64(max(period, 1)) }

// memoryLimit is in bytes, or -1.
func memoryLimit(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources, parentHas bool) int64 {
	extra := max(overhead.GetMemoryLimitInBytes(), 0)
	sum, all := total(containers, func(r *runtimeapi.LinuxContainerResources) int64 { return r.GetMemoryLimitInBytes() })
	if l := pod.GetMemoryLimitInBytes(); l > 0 && (all || parentHas) {
		return plus(l, extra)
	}
	if extra == 0 {
		extra = sandboxMemory
	}
	if !all {
		return -1
	}
	return plus(sum, extra)
}

// cpuLimit is a quota and its period in microseconds; a quota of -1 is none, and
// needs no period.
func cpuLimit(pod, overhead *runtimeapi.LinuxContainerResources, containers []*runtimeapi.LinuxContainerResources, parentHas bool) (quota int64, period uint64) {
	period = DefaultCPUPeriod
	if p := pod.GetCpuPeriod(); p > 0 {
		period = uint64(p)
	}
	in := func(r *runtimeapi.LinuxContainerResources) int64 { return quotaIn(r, period) }
	sum, all := total(containers, in)
	switch {
	case pod.GetCpuQuota() < 0:
		return -1, 0
	case pod.GetCpuQuota() > 0 && (all || parentHas):
		return min(plus(pod.GetCpuQuota(), in(overhead)), maxQuota), period
	case !all:
		return -1, 0
	}
	return min(plus(sum, in(overhead)), maxQuota), period
}

// isPodsOwn tells whether a cgroup's parent was made for this pod alone: the
// kubelet's is named after its uid, as a directory or, with underscores, as a slice.
func isPodsOwn(parent, uid string) bool {
	name := strings.TrimSuffix(path.Base(parent), ".slice")
	if uid == "" {
		return false
	}
	return strings.HasSuffix(name, "pod"+uid) || strings.HasSuffix(name, "pod"+strings.ReplaceAll(uid, "-", "_"))
}

// plus adds what is not negative. More than an int64 holds is the most that it holds:
// a limit that nothing reaches.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// quotaIn is a quota as it would be in another period, or 0 without one.
func quotaIn(r *runtimeapi.LinuxContainerResources, period uint64) int64 {
	own := uint64(max(r.GetCpuPeriod(), 0))
	if own == 0 {
		own = DefaultCPUPeriod
	}
	high, low := bits.Mul64(uint64(max(r.GetCpuQuota(), 0)), period)
	if high >= own { // the quotient is above a uint64
		return math.MaxInt64
	}
	quota, _ := bits.Div64(high, low, own)
	return int64(min(quota, math.MaxInt64))
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
		sum = plus(sum, v)
	}
	return sum, len(containers) > 0
}

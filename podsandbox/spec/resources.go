package spec

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits is the OCI form of a request's resources: bytes, microseconds and, for
// CPU, relative shares. Zero and empty fields mean "not specified" and are absent.
// The result is nil for nil and shares no memory with res. OOMScoreAdj is no
// resource in OCI; it is in the spec's process.
func Limits(res *runtimeapi.LinuxContainerResources) *specs.LinuxResources {
	if res == nil {
		return nil
	}
	out := &specs.LinuxResources{Unified: maps.Clone(res.GetUnified())}

	cpu := specs.LinuxCPU{
		Shares: positive[uint64](res.GetCpuShares()),
		Period: positive[uint64](res.GetCpuPeriod()),
		Cpus:   res.GetCpusetCpus(),
		Mems:   res.GetCpusetMems(),
	}
	if q := res.GetCpuQuota(); q != 0 { // -1 takes a limit off
		cpu.Quota = &q
	}
	if cpu != (specs.LinuxCPU{}) {
		out.CPU = &cpu
	}

	memory := specs.LinuxMemory{Limit: positive[int64](res.GetMemoryLimitInBytes())}
	if s := res.GetMemorySwapLimitInBytes(); s != 0 {
		memory.Swap = &s
	}
	if memory != (specs.LinuxMemory{}) {
		out.Memory = &memory
	}

	for _, l := range res.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return out
}

func positive[T int64 | uint64](v int64) *T {
	if v <= 0 {
		return nil
	}
	t := T(v)
	return &t
}

package spec

import (
	"maps"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ValidateUpdate checks changed resources of what. Zero means "as before" in an
// update, so a memory limit of -1 takes one off, as -1 does for the others.
// Errors as for ValidateContainer.
func ValidateUpdate(what string, change *runtimeapi.LinuxContainerResources) error {
	if change.GetMemoryLimitInBytes() == -1 {
		change = proto.Clone(change).(*runtimeapi.LinuxContainerResources)
		change.MemoryLimitInBytes = 0
	}
	return checkResources(what, change)
}

// MergeResources returns what holds after a valid update: the change's fields
// where they are specified, the old ones elsewhere. The result shares no memory
// with either; nil stands for nothing specified.
func MergeResources(old, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{}
	if old != nil {
		out = proto.Clone(old).(*runtimeapi.LinuxContainerResources)
	}
	if change == nil {
		return out
	}
	for _, f := range []struct {
		to   *int64
		from int64
	}{
		{&out.CpuPeriod, change.GetCpuPeriod()},
		{&out.CpuQuota, change.GetCpuQuota()},
		{&out.CpuShares, change.GetCpuShares()},
		{&out.MemoryLimitInBytes, change.GetMemoryLimitInBytes()},
		{&out.MemorySwapLimitInBytes, change.GetMemorySwapLimitInBytes()},
		{&out.OomScoreAdj, change.GetOomScoreAdj()},
	} {
		if f.from != 0 {
			*f.to = f.from
		}
	}
	out.MemoryLimitInBytes = max(out.MemoryLimitInBytes, 0)
	if change.GetCpusetCpus() != "" {
		out.CpusetCpus = change.GetCpusetCpus()
	}
	if change.GetCpusetMems() != "" {
		out.CpusetMems = change.GetCpusetMems()
	}
	if len(change.GetUnified()) > 0 {
		out.Unified = maps.Clone(out.GetUnified())
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		maps.Copy(out.Unified, change.GetUnified())
	}
	if len(change.GetHugepageLimits()) > 0 {
		out.HugepageLimits = proto.Clone(change).(*runtimeapi.LinuxContainerResources).HugepageLimits
	}
	return out
}

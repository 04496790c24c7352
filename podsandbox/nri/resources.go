package nri

import (
	"fmt"
	"maps"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// resources is a plugin's wish in the form of a CRI request, where zero means "as
// before". What no cgroup of a pod can say of a single container is
// engine.ErrNeedsHost, by its name. The result is nil when nothing is wished.
func resources(r *api.LinuxResources) (*runtimeapi.LinuxContainerResources, error) {
	if err := refuseResources(r); err != nil {
		return nil, err
	}
	cpu := r.GetCpu()
	out := &runtimeapi.LinuxContainerResources{
		CpuShares:              int64(cpu.GetShares().GetValue()),
		CpuQuota:               cpu.GetQuota().GetValue(),
		CpuPeriod:              int64(cpu.GetPeriod().GetValue()),
		CpusetCpus:             cpu.GetCpus(),
		CpusetMems:             cpu.GetMems(),
		MemoryLimitInBytes:     r.GetMemory().GetLimit().GetValue(),
		MemorySwapLimitInBytes: r.GetMemory().GetSwap().GetValue(),
	}
	for _, l := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	if len(r.GetUnified()) > 0 {
		out.Unified = maps.Clone(r.GetUnified())
	}
	if proto.Equal(out, &runtimeapi.LinuxContainerResources{}) {
		return nil, nil
	}
	return out, nil
}

func refuseResources(r *api.LinuxResources) error {
	m, cpu := r.GetMemory(), r.GetCpu()
	for _, wish := range []struct {
		name string
		is   bool
	}{
		{"memory reservation", m.GetReservation() != nil},
		{"kernel memory limit", m.GetKernel() != nil},
		{"kernel TCP memory limit", m.GetKernelTcp() != nil},
		{"swappiness", m.GetSwappiness() != nil},
		{"disabled OOM killer", m.GetDisableOomKiller().GetValue()},
		{"memory hierarchy", m.GetUseHierarchy() != nil},
		{"real-time CPU", cpu.GetRealtimePeriod() != nil || cpu.GetRealtimeRuntime() != nil},
		{"block I/O class", r.GetBlockioClass().GetValue() != ""},
		{"RDT class", r.GetRdtClass().GetValue() != ""},
		{"limit of processes", r.GetPids() != nil},
		{"device rule", len(r.GetDevices()) > 0},
	} {
		if wish.is {
			return fmt.Errorf("%s of a container: not possible in a sandbox: %w", wish.name, engine.ErrNeedsHost)
		}
	}
	return nil
}

// overlay puts the fields of over that say something into a copy of change. Unlike
// a merge with what holds, it keeps a -1, which takes a limit off.
func overlay(change, over *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	if over == nil {
		return change
	}
	out := spec.MergeResources(change, over)
	if over.GetMemoryLimitInBytes() == 0 {
		out.MemoryLimitInBytes = change.GetMemoryLimitInBytes()
	}
	return out
}

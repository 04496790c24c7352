package podsandbox

import (
	"reflect"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
)

func TestPodLimits(t *testing.T) {
	type res = runtimeapi.LinuxContainerResources
	const mib = 1 << 20
	none := cgroup.Limits{CPUQuota: -1, MemoryBytes: -1}
	with := func(change func(*cgroup.Limits)) cgroup.Limits {
		l := none
		change(&l)
		return l
	}
	a := &res{MemoryLimitInBytes: 64 * mib, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512, CpusetCpus: "0"}
	b := &res{MemoryLimitInBytes: 32 * mib, CpuQuota: 5000, CpuPeriod: 10000, CpuShares: 2, CpusetCpus: "1"}
	for name, c := range map[string]struct {
		pod, overhead *res
		containers    []*res
		want          cgroup.Limits
	}{
		"nothing stated":        {nil, nil, nil, none},
		"unlimited container":   {nil, nil, []*res{{}}, none},
		"one of two is limited": {nil, nil, []*res{a, {}}, none},
		"sum of containers": {nil, nil, []*res{a, b}, with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 96*mib+sandboxMemory, 100000, 100000, 514, "0,1"
		})},
		"one dimension": {nil, nil, []*res{{MemoryLimitInBytes: mib}, {MemoryLimitInBytes: mib, CpuQuota: 1000}}, with(func(l *cgroup.Limits) {
			l.MemoryBytes = 2*mib + sandboxMemory
		})},
		"sum and overhead": {nil, &res{MemoryLimitInBytes: 10 * mib, CpuQuota: 7000, CpuPeriod: 100000}, []*res{a}, with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 74*mib, 57000, 100000, 512, "0"
		})},
		"the pod's own win": {
			&res{MemoryLimitInBytes: 20 * mib, CpuQuota: 30000, CpuPeriod: 50000, CpuShares: 100, CpusetCpus: "0-3", Unified: map[string]string{"io.weight": "5"}},
			&res{MemoryLimitInBytes: 1 * mib, CpuQuota: 1000, CpuPeriod: 100000}, []*res{a, b},
			cgroup.Limits{MemoryBytes: 21 * mib, CPUQuota: 30500, CPUPeriod: 50000, CPUShares: 100, CpusetCpus: "0-3", Unified: map[string]string{"io.weight": "5"}},
		},
		"the pod's memory, the containers' CPU": {&res{MemoryLimitInBytes: 500 * mib}, nil, []*res{a}, with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 500*mib, 50000, 100000, 512, "0"
		})},
		"the pod says no CPU limit": {&res{CpuQuota: -1}, nil, []*res{{CpuQuota: 1000}}, none},
		"too many shares": {nil, nil, []*res{{CpuShares: 262144}, {CpuShares: 262144}}, with(func(l *cgroup.Limits) {
			l.CPUShares = 262144
		})},
	} {
		if got := podLimits(c.pod, c.overhead, c.containers); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

package resources

import (
	"math"
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
	shares := func(l *cgroup.Limits) { l.CPUShares, l.CpusetCpus = 512, "0" }
	stated := &res{MemoryLimitInBytes: 32 * mib, CpuQuota: 50000, CpuPeriod: 100000}
	both := func(l *cgroup.Limits) { l.MemoryBytes, l.CPUQuota, l.CPUPeriod = 32*mib, 50000, 100000 }
	same, roomy := bounds{32 * mib, 5000, 10000}, bounds{1 << 40, 200000, 100000}
	extreme := &res{MemoryLimitInBytes: math.MaxInt64, CpuQuota: math.MaxInt64, CpuPeriod: math.MaxInt64, CpuShares: math.MaxInt64}
	most := func(l *cgroup.Limits) {
		l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares = math.MaxInt64, 2*DefaultCPUPeriod, DefaultCPUPeriod, maxShares
	}
	b := &res{MemoryLimitInBytes: 32 * mib, CpuQuota: 5000, CpuPeriod: 10000, CpuShares: 2, CpusetCpus: "1"}
	for name, c := range map[string]struct {
		pod, overhead *res
		containers    []*res
		want          cgroup.Limits
		up            above
	}{
		"nothing stated":        {want: none},
		"unlimited container":   {containers: []*res{{}}, want: none},
		"one of two is limited": {containers: []*res{a, {}}, want: none},
		"sum of containers": {containers: []*res{a, b}, want: with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 96*mib+sandboxMemory, 100000, 100000, 514, "0,1"
		})},
		"one dimension": {containers: []*res{{MemoryLimitInBytes: mib}, {MemoryLimitInBytes: mib, CpuQuota: 1000}}, want: with(func(l *cgroup.Limits) {
			l.MemoryBytes = 2*mib + sandboxMemory
		})},
		"sum and overhead": {overhead: &res{MemoryLimitInBytes: 10 * mib, CpuQuota: 7000, CpuPeriod: 100000}, containers: []*res{a}, want: with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 74*mib, 57000, 100000, 512, "0"
		})},
		"the pod's own win": {
			pod:      &res{MemoryLimitInBytes: 20 * mib, CpuQuota: 30000, CpuPeriod: 50000, CpuShares: 100, CpusetCpus: "0-3", Unified: map[string]string{"io.weight": "5"}},
			overhead: &res{MemoryLimitInBytes: 1 * mib, CpuQuota: 1000, CpuPeriod: 100000}, containers: []*res{a, b},
			want: cgroup.Limits{MemoryBytes: 21 * mib, CPUQuota: 30500, CPUPeriod: 50000, CPUShares: 100, CpusetCpus: "0-3", Unified: map[string]string{"io.weight": "5"}},
		},
		"the pod's memory, the containers' CPU": {pod: &res{MemoryLimitInBytes: 500 * mib}, containers: []*res{a}, want: with(func(l *cgroup.Limits) {
			l.MemoryBytes, l.CPUQuota, l.CPUPeriod, l.CPUShares, l.CpusetCpus = 500*mib, 50000, 100000, 512, "0"
		})},
		"the pod says no CPU limit": {pod: &res{CpuQuota: -1}, containers: []*res{{CpuQuota: 1000}}, want: none},
		"too many shares": {containers: []*res{{CpuShares: 262144}, {CpuShares: 262144}}, want: with(func(l *cgroup.Limits) {
			l.CPUShares = 262144
		})},
		// The kubelet's sum of what is limited, of a sidecar beside a container without limits.
		"a partial sum":                       {pod: a, containers: []*res{a, {}}, want: with(shares)},
		"stated before there is a container":  {pod: a, want: with(shares)},
		"stated, in a parent with limits":     {pod: stated, containers: []*res{{}}, up: above{parent: roomy, ceiling: roomy}, want: with(both)},
		"stated, below a limit further above": {pod: stated, containers: []*res{{}}, up: above{ceiling: roomy}, want: none},
		"stated, of memory alone": {pod: stated, containers: []*res{{}}, up: above{parent: bounds{memory: 1 << 40}, ceiling: bounds{memory: 1 << 40}}, want: with(func(l *cgroup.Limits) {
			l.MemoryBytes = 32 * mib
		})},
		// What is above is as tight or tighter: on v1 no more could be set, and less stands in the way.
		"the parent has the same":  {pod: stated, containers: []*res{b}, up: above{parent: same, ceiling: same}, want: with(func(l *cgroup.Limits) { l.CPUShares, l.CpusetCpus = 2, "1" })},
		"further above is tighter": {containers: []*res{stated}, up: above{ceiling: bounds{memory: mib, quota: 49, period: 100}}, want: none},
		"the parent is the pod's":  {pod: stated, containers: []*res{stated}, up: above{podsOwn: true, parent: roomy, ceiling: roomy}, want: none},
		// Sums that an int64 does not hold.
		"extreme containers":         {containers: []*res{extreme, extreme}, want: with(most)},
		"extreme beside a small":     {containers: []*res{extreme, a}, want: with(func(l *cgroup.Limits) { most(l); l.CPUQuota = DefaultCPUPeriod * 3 / 2 })},
		"extreme pod and overhead":   {pod: extreme, overhead: extreme, containers: []*res{a}, want: with(func(l *cgroup.Limits) { most(l); l.CPUQuota, l.CPUPeriod, l.CpusetCpus = maxQuota, math.MaxInt64, "0" })},
		"extreme overhead":           {overhead: extreme, containers: []*res{{MemoryLimitInBytes: 1, CpuQuota: 1000}}, want: with(func(l *cgroup.Limits) { most(l); l.CPUShares = 0; l.CPUQuota = 1000 + DefaultCPUPeriod })},
		"extreme quota of a period":  {containers: []*res{{CpuQuota: math.MaxInt64, CpuPeriod: 1}}, want: with(func(l *cgroup.Limits) { l.CPUQuota, l.CPUPeriod = maxQuota, DefaultCPUPeriod })},
		"extreme, in a tight parent": {containers: []*res{extreme, extreme}, up: above{parent: same, ceiling: same}, want: with(func(l *cgroup.Limits) { l.CPUShares = maxShares })},
	} {
		if got := podLimits(c.pod, c.overhead, c.containers, c.up); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestIsPodsOwn(t *testing.T) {
	const uid = "0f1e-2d3c"
	for parent, want := range map[string]bool{
		"/kubepods/burstable/pod0f1e-2d3c":                   true,
		"/kubepods/pod0f1e-2d3c/":                            true,
		"kubepods-burstable-pod0f1e_2d3c.slice":              true,
		"/kubelet.slice/kubelet-kubepods-pod0f1e_2d3c.slice": true,
		"": false, "/": false, "/kubepods/burstable": false, "/pod0f1e-2d3": false, "/pod0f1e-2d3c/x": false,
	} {
		if got := isPodsOwn(parent, uid); got != want {
			t.Errorf("%q: %v", parent, got)
		}
	}
	if isPodsOwn("/kubepods/pod", "") {
		t.Error("a pod without a uid has a parent of its own")
	}
}

func TestQuotaInAnotherPeriod(t *testing.T) {
	const most = math.MaxInt64
	for _, c := range []struct {
		quota, own int64
		period     uint64
		want       int64
	}{
		{50000, 100000, 50000, 25000},
		{50000, 0, 100000, 50000},
		{-1, 100000, 100000, 0},
		{0, 100000, 100000, 0},
		{most, most, most, most},
		{most, most, 100000, 100000},
		{most, 100000, 100000, most},
		{most, 1, 2, most},
		{most, 1, most, most},
		{most, -5, 100000, most},
		{1, most, 100000, 0},
		// A float64 has no room for the last digit.
		{1<<53 + 1, 100000, 100000, 1<<53 + 1},
	} {
		if got := quotaIn(&runtimeapi.LinuxContainerResources{CpuQuota: c.quota, CpuPeriod: c.own}, c.period); got != c.want {
			t.Errorf("%d of %d in %d is %d, want %d", c.quota, c.own, c.period, got, c.want)
		}
	}
}

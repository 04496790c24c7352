package spec

import (
	"errors"
	"math"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type resources = runtimeapi.LinuxContainerResources

func TestValidateUpdate(t *testing.T) {
	for name, c := range map[string]struct {
		change *resources
		want   error
	}{
		"nothing":          {&resources{}, nil},
		"plain":            {&resources{CpuQuota: 5000, MemoryLimitInBytes: 1 << 20}, nil},
		"takes limits off": {&resources{CpuQuota: -1, MemoryLimitInBytes: -1, MemorySwapLimitInBytes: -1}, nil},
		"memory":           {&resources{MemoryLimitInBytes: -2}, errdefs.ErrInvalidArgument},
		"quota":            {&resources{CpuQuota: -7}, errdefs.ErrInvalidArgument},
		"cpuset":           {&resources{CpusetCpus: "all"}, errdefs.ErrInvalidArgument},
		"path":             {&resources{Unified: map[string]string{"../x": "1"}}, errdefs.ErrInvalidArgument},
		"huge pages":       {&resources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}}, nil},
	} {
		if err := ValidateUpdate("resources of container x", c.change); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestMergeResourcesChangesOnlyWhatIsNamed(t *testing.T) {
	old := &resources{
		CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 7,
		CpusetCpus: "0-1", CpusetMems: "0", Unified: map[string]string{"memory.high": "1", "io.weight": "2"},
	}
	saved := proto.Clone(old).(*resources)
	with := func(change func(*resources)) *resources {
		r := proto.Clone(saved).(*resources)
		change(r)
		return r
	}
	for name, c := range map[string]struct{ old, change, want *resources }{
		"nothing":     {old, &resources{}, saved},
		"nil":         {old, nil, saved},
		"memory":      {old, &resources{MemoryLimitInBytes: 1}, with(func(r *resources) { r.MemoryLimitInBytes = 1 })},
		"no memory":   {old, &resources{MemoryLimitInBytes: -1}, with(func(r *resources) { r.MemoryLimitInBytes = 0 })},
		"no quota":    {old, &resources{CpuQuota: -1}, with(func(r *resources) { r.CpuQuota = -1 })},
		"shares":      {old, &resources{CpuShares: 2}, with(func(r *resources) { r.CpuShares = 2 })},
		"cpuset":      {old, &resources{CpusetCpus: "1"}, with(func(r *resources) { r.CpusetCpus = "1" })},
		"unified":     {old, &resources{Unified: map[string]string{"io.weight": "3"}}, with(func(r *resources) { r.Unified["io.weight"] = "3" })},
		"of none":     {nil, &resources{CpuShares: 2, Unified: map[string]string{"a.b": "c"}}, &resources{CpuShares: 2, Unified: map[string]string{"a.b": "c"}}},
		"none at all": {nil, nil, &resources{}},
	} {
		if got := MergeResources(c.old, c.change); !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if !proto.Equal(old, saved) {
			t.Fatalf("%s: the old resources were changed", name)
		}
	}
}

func TestMergeResourcesAtTheExtremes(t *testing.T) {
	most := &resources{
		CpuPeriod: math.MaxInt64, CpuQuota: math.MaxInt64, CpuShares: math.MaxInt64, MemoryLimitInBytes: math.MaxInt64,
		MemorySwapLimitInBytes: math.MaxInt64, OomScoreAdj: math.MaxInt64,
	}
	for name, c := range map[string]struct{ old, change, want *resources }{
		"over nothing": {nil, most, most},
		"over itself":  {most, most, most},
		"kept":         {most, &resources{}, most},
		"taken off":    {&resources{MemoryLimitInBytes: math.MaxInt64}, &resources{MemoryLimitInBytes: math.MinInt64}, &resources{}},
	} {
		if got := MergeResources(c.old, c.change); !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

package gvisor

import (
	"context"
	"strconv"

	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A container sees its limits in its own cgroup of the sandbox, at /sys/fs/cgroup:
// runtimes of languages choose the sizes of their heaps and pools by them. The
// Sentry takes no resources from a spec, and its call that writes control files
// ends it (Cgroups.WriteControlFiles with cgroup v2), so a program does it, as for
// sysctls. It makes the container's cgroup before the Sentry does, which then takes
// the one that is there: the limits are in place before the first instruction.

// limit is a control file and its value.
type limit struct{ file, value string }

// limitsOf are what a container's cgroup shows of its resources; those that do not
// exist are shown as none. Of the files that the request names itself, others than
// these are not in the Sentry.
func limitsOf(r *specs.LinuxResources) []limit {
	memory, quota, period, weight, pids := "max", "max", uint64(100_000), uint64(0), ""
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		memory = strconv.FormatInt(*m.Limit, 10)
	}
	if c := r.CPU; c != nil {
		if c.Quota != nil && *c.Quota > 0 {
			quota = strconv.FormatInt(*c.Quota, 10)
		}
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		if c.Shares != nil {
			weight = cgroup2.ConvertCPUSharesToCgroupV2Value(*c.Shares)
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit > 0 {
		pids = strconv.FormatInt(*p.Limit, 10)
	}
	out := []limit{{"memory.max", memory}, {"cpu.max", quota + " " + strconv.FormatUint(period, 10)}}
	if weight > 0 {
		out = append(out, limit{"cpu.weight", strconv.FormatUint(weight, 10)})
	}
	if pids != "" {
		out = append(out, limit{"pids.max", pids})
	}
	for _, file := range []string{"memory.max", "memory.high", "cpu.max", "cpu.weight", "pids.max"} {
		if value := r.Unified[file]; value != "" {
			out = append(out, limit{file, value})
		}
	}
	return out
}

// leastShares is the smallest value, and what the kubelet sends of a container that
// requests no CPU.
const leastShares = 2

// isLimited tells whether a container has a limit of memory or CPU.
func isLimited(r *specs.LinuxResources) bool {
	return r != nil && (r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 ||
		r.CPU != nil && r.CPU.Quota != nil && *r.CPU.Quota > 0 ||
		r.Unified["memory.max"] != "" || r.Unified["cpu.max"] != "")
}

// unlimited are the first that limitsOf returns for a container without limits, as
// the Sentry would show it by itself.
var unlimited = []limit{{"memory.max", "max"}, {"cpu.max", "max 100000"}}

// Update implements engine.Sandbox.
func (s *Sandbox) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	return s.programs.setCgroup(ctx, id, limitsOf(r))
}

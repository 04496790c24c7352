package spec

import (
	"regexp"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var cpusetForm = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)

func podResources(c *runtimeapi.PodSandboxConfig) error {
	if err := checkResources("pod overhead", c.GetLinux().GetOverhead()); err != nil {
		return err
	}
	return checkResources("pod resources", c.GetLinux().GetResources())
}

func containerResources(r containerRequest) error {
	return checkResources("container resources", r.GetLinux().GetResources())
}

func checkResources(what string, res *runtimeapi.LinuxContainerResources) error {
	switch {
	case res.GetCpuPeriod() < 0 || res.GetCpuShares() < 0:
		return invalidf("%s: CPU period and shares must not be negative", what)
	case res.GetCpuQuota() < -1:
		return invalidf("%s: CPU quota %d; use -1 for none", what, res.GetCpuQuota())
	case res.GetMemoryLimitInBytes() < 0:
		return invalidf("%s: memory limit %d must not be negative; use 0 for none", what, res.GetMemoryLimitInBytes())
	case res.GetMemorySwapLimitInBytes() < -1:
		return invalidf("%s: swap limit %d; use -1 for none", what, res.GetMemorySwapLimitInBytes())
	case res.GetOomScoreAdj() < -1000 || res.GetOomScoreAdj() > 1000:
		return invalidf("%s: oom_score_adj %d is outside -1000–1000", what, res.GetOomScoreAdj())
	}
	for _, set := range []string{res.GetCpusetCpus(), res.GetCpusetMems()} {
		if set != "" && !cpusetForm.MatchString(set) {
			return invalidf("%s: cpuset %q is not a list such as 0-2,4", what, set)
		}
	}
	for _, file := range sortedKeys(res.GetUnified()) {
		// These become file names in a cgroup directory of the host.
		if err := checkName(what+": cgroup file", file); err != nil {
			return err
		}
		if strings.ContainsFunc(res.GetUnified()[file], func(r rune) bool { return r == 0 }) {
			return invalidf("%s: cgroup file %s has a value with a NUL byte", what, file)
		}
	}
	return nil
}

package gvisor

import (
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// controllers is /proc/cgroups of a node with cgroup v2. The Sentry's has those of
// v1, which are none. A JVM (17, for one) looks there whether cgroups can limit it
// at all.
const controllers = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" +
	"cpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n"

// showControllers puts the controllers into the /proc of a container with limits.
func (t *translator) showControllers(p *preparedSpec, spec *specs.Spec) error {
	const place = "/proc/cgroups"
	if spec.Linux == nil || !isLimited(spec.Linux.Resources) || slices.Contains(p.emptyProcFiles, path.Base(place)) {
		return nil
	}
	file, err := t.podFile("cgroups", controllers)
	if err != nil {
		return err
	}
	p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
		Destination: place, Type: "bind", Source: file, Options: []string{"bind", "ro", "nosuid", "noexec", "nodev"},
	})
	return nil
}

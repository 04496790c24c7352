package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// parentGroup is a cgroup that a test makes for pods, as the kubelet does.
type parentGroup struct {
	kit
	name string // as it is asked for: cgroup_parent
	path string // below the mounts
}

// parentGroup makes a cgroup, which goes with the test.
func (k limitsKit) parentGroup(name string) parentGroup {
	k.Helper()
	top := k.env.CgroupParent
	g := parentGroup{kit: k.kit, name: top + "/" + name, path: top + "/" + name}
	if base, ok := strings.CutSuffix(top, ".slice"); ok {
		g.name = base + "-" + strings.ReplaceAll(name, "-", "_") + ".slice"
		g.path = "/" + top + "/" + g.name
	}
	for _, root := range g.roots() {
		dir := root
		for _, part := range strings.Split(strings.Trim(g.path, "/"), "/") {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +memory"), 0o644) // v2
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				k.Fatal(err)
			}
		}
		k.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				k.Error(err)
			}
			_ = os.Remove(filepath.Dir(dir)) // others' pods may be there
		})
	}
	return g
}

func (g parentGroup) roots() []string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	return []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"}
}

// set gives it limits; -1 is none.
func (g parentGroup) set(memory, quota int64) error {
	orMax := func(v int64) string {
		if v < 0 {
			return "max"
		}
		return fmt.Sprint(v)
	}
	roots := g.roots()
	if len(roots) == 1 {
		return errors.Join(os.WriteFile(filepath.Join(roots[0], g.path, "memory.max"), []byte(orMax(memory)), 0o644),
			os.WriteFile(filepath.Join(roots[0], g.path, "cpu.max"), []byte(orMax(quota)+" 100000"), 0o644))
	}
	return errors.Join(os.WriteFile(filepath.Join(roots[0], g.path, "memory.limit_in_bytes"), fmt.Append(nil, memory), 0o644),
		os.WriteFile(filepath.Join(roots[1], g.path, "cpu.cfs_quota_us"), fmt.Append(nil, quota), 0o644))
}

// below runs a pod in it.
func (g parentGroup) below(r *runtimeapi.LinuxContainerResources) func(*runtimeapi.PodSandboxConfig) {
	return func(p *runtimeapi.PodSandboxConfig) { p.Linux.CgroupParent, p.Linux.Resources = g.name, r }
}

// TestUpdatePodSandboxResourcesInWhateverOrder: the kubelet asks before or after it
// resizes its own cgroup, and on v1 no child may have more CPU than its parent.
func TestUpdatePodSandboxResourcesInWhateverOrder(t *testing.T) {
	k := limitsKit{newKit(t)}
	const uid = "6ff1d3a4-0000-4000-8000-000000000001"
	size := func(n int64) *runtimeapi.LinuxContainerResources {
		return &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: n * 100 * mib, CpuQuota: n * 50000, CpuPeriod: 100000}
	}
	for name, own := range map[string]bool{"pod" + uid: true, "shared": false} {
		t.Run(strings.TrimSuffix(name, uid), func(t *testing.T) {
			k := limitsKit{newKitOn(t, k.env)}
			g := k.parentGroup(name)
			k.must(g.set(200*mib, 100000))
			id, pod := k.pod(g.below(size(2)), func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Uid = uid })
			a := k.start(id, pod, k.shell("a", "exec sleep 600", withResources(size(2))))
			k.wantLimits(id, -1, -1) // the parent has it
			ask := func(n int64) {
				t.Helper()
				_, err := k.runtime().UpdatePodSandboxResources(k.ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Resources: size(n)})
				k.must(err)
				k.must(k.update(a, size(n)))
			}
			parent := func(n int64) { t.Helper(); k.must(g.set(n*100*mib, n*50000)) }

			ask(4) // raised, the caller's own cgroup last
			k.wantLimits(id, -1, -1)
			parent(4)
			k.wantLimits(id, -1, -1)
			parent(6) // and first
			ask(6)
			k.wantLimits(id, -1, -1)
			ask(3) // lowered
			if own {
				k.wantLimits(id, -1, -1)
			} else {
				k.wantLimits(id, 300*mib, 150000) // until the parent follows, if ever
			}
			parent(3)
			ask(3)
			k.wantLimits(id, -1, -1)
			parent(2) // lowered without asking
			ask(2)
			k.wantLimits(id, -1, -1)
			k.sees(a, fmt.Sprint(200*mib)+" 100000 100000 100")
			if own {
				return
			}
			ask(3)
			parent(10) // more than was asked for, and then the container's turn
			ask(3)
			k.wantLimits(id, 300*mib, 150000)
		})
	}
}

// TestLimitsOfAPodThatAreAPartialSum: the kubelet states the sum of the limits that
// there are (kubernetes#140810), here of a sidecar beside a container without any.
func TestLimitsOfAPodThatAreAPartialSum(t *testing.T) {
	k := limitsKit{newKit(t)}
	sidecar := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, CpuQuota: 10000, CpuPeriod: 100000}
	unlimited := k.parentGroup("unlimited")
	id, pod := k.pod(unlimited.below(sidecar))
	k.wantLimits(id, -1, -1)
	k.start(id, pod, k.shell("sidecar", "exec sleep 600", withResources(sidecar)))
	k.wantLimits(id, 64*mib, 10000) // it is all there is so far
	main := k.start(id, pod, k.shell("main", "grep MemTotal /proc/meminfo; "+eat(150)))
	k.wantLimits(id, -1, -1)
	k.logHas(pod, k.shell("main", ""), "eaten")
	if out := k.exec(main, "grep MemTotal /proc/meminfo"); memTotal(k.kit, out) <= 64*mib {
		t.Errorf("the machine has %s", out)
	}
}

func memTotal(k kit, out string) int64 {
	k.Helper()
	var kib int64
	if _, err := fmt.Sscanf(out, "MemTotal: %d kB", &kib); err != nil {
		k.Errorf("%q: %v", out, err)
	}
	return kib << 10
}

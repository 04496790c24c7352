package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const mib = 1 << 20

// sandboxMemory is what the daemon adds to the sum of the containers' limits.
const sandboxMemory = 64 * mib

func withResources(r *runtimeapi.LinuxContainerResources) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = r }
}

func memory(mibs int64) *runtimeapi.LinuxContainerResources {
	return &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: mibs * mib}
}

// limitsKit is a kit for tests of limits: those of a pod's cgroup, and those that a
// container sees.
type limitsKit struct{ kit }

// cgroups are the directories of a pod's cgroup.
func (k limitsKit) cgroups(podID string) []string {
	k.Helper()
	resp, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID, Verbose: true})
	k.must(err)
	var info struct {
		Cgroups []string `json:"cgroups"`
	}
	k.must(json.Unmarshal([]byte(resp.Info["info"]), &info))
	return info.Cgroups
}

// cgroupValue reads a control file of a pod's cgroup, by its name on v1 or v2.
func (k limitsKit) cgroupValue(podID, v1, v2 string) string {
	k.Helper()
	dirs := k.cgroups(podID)
	for _, dir := range dirs {
		for _, file := range []string{v1, v2} {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
	}
	k.Fatalf("no file %s or %s in %v", v1, v2, dirs)
	return ""
}

// groupMemory is the memory limit of a pod's cgroup in bytes, or -1.
func (k limitsKit) groupMemory(podID string) int64 {
	k.Helper()
	v := k.cgroupValue(podID, "memory.limit_in_bytes", "memory.max")
	n, err := strconv.ParseInt(v, 10, 64)
	if v == "max" || err == nil && n >= 1<<62 {
		return -1
	}
	k.must(err)
	return n
}

// groupQuota is the CPU quota of a pod's cgroup in microseconds, or -1.
func (k limitsKit) groupQuota(podID string) int64 {
	k.Helper()
	v, _, _ := strings.Cut(k.cgroupValue(podID, "cpu.cfs_quota_us", "cpu.max"), " ")
	if v == "max" {
		return -1
	}
	n, err := strconv.ParseInt(v, 10, 64)
	k.must(err)
	return n
}

func (k limitsKit) update(id string, r *runtimeapi.LinuxContainerResources) error {
	_, err := k.runtime().UpdateContainerResources(k.ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
	return err
}

func (k limitsKit) wantLimits(podID string, memory, quota int64) {
	k.Helper()
	if m, q := k.groupMemory(podID), k.groupQuota(podID); m != memory || q != quota {
		k.Errorf("the pod's cgroup has %d bytes and a quota of %d, want %d and %d", m, q, memory, quota)
	}
}

func TestLimitsOfAPodAreTheSumOfItsContainers(t *testing.T) {
	k := limitsKit{newKit(t)}
	id, pod := k.pod()
	k.wantLimits(id, -1, -1)
	a := k.start(id, pod, k.shell("a", "exec sleep 600", withResources(
		&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512})))
	k.wantLimits(id, 64*mib+sandboxMemory, 50000)
	b := k.start(id, pod, k.shell("b", "exec sleep 600", withResources(
		&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib, CpuQuota: 2500, CpuPeriod: 10000, CpuShares: 256})))
	k.wantLimits(id, 96*mib+sandboxMemory, 75000)
	k.must(k.update(a, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 * mib, CpuQuota: 80000}))
	k.wantLimits(id, 160*mib+sandboxMemory, 105000)
	if r := k.status(a).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 128*mib || r.GetCpuQuota() != 80000 || r.GetCpuShares() != 512 {
		t.Errorf("the container's resources are %v", r)
	}
	k.wait(k.start(id, pod, k.shell("short", "true", withResources(memory(256)))))
	for deadline := time.Now().Add(limit); k.groupMemory(id) != 160*mib+sandboxMemory; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a container that has ended counts: %d bytes", k.groupMemory(id))
		}
	}
	// A container without a limit leaves the pod without one.
	c := k.start(id, pod, k.shell("c", "exec sleep 600"))
	k.wantLimits(id, -1, -1)
	never, err := k.create(id, pod, k.shell("never", "true", withResources(memory(512))))
	k.must(err)
	for _, gone := range []string{c, b, never} {
		_, err := k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: gone})
		k.must(err)
	}
	k.wantLimits(id, 128*mib+sandboxMemory, 80000)
}

func TestLimitsOfThePodItselfWin(t *testing.T) {
	k := limitsKit{newKit(t)}
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 300 * mib, CpuQuota: 40000, CpuPeriod: 100000}
		p.Linux.Overhead = memory(50)
	})
	k.wantLimits(id, -1, -1) // not before every container is known to have limits
	k.start(id, pod, k.shell("a", "exec sleep 600", withResources(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, CpuQuota: 1000})))
	k.wantLimits(id, 350*mib, 40000)
	update := func(overhead, resources *runtimeapi.LinuxContainerResources) error {
		_, err := k.runtime().UpdatePodSandboxResources(k.ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{
			PodSandboxId: id, Overhead: overhead, Resources: resources,
		})
		return err
	}
	k.must(update(nil, memory(400)))
	k.wantLimits(id, 450*mib, 40000)
	k.must(update(memory(60), &runtimeapi.LinuxContainerResources{CpuQuota: 60000}))
	k.wantLimits(id, 460*mib, 60000)

	k.refused(update(nil, &runtimeapi.LinuxContainerResources{CpuQuota: -2}), codes.InvalidArgument, "quota")
	one := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1, CpuQuota: 10000}
	k.refused(update(one, one), codes.FailedPrecondition, "uses")
	k.wantLimits(id, 460*mib, 60000)
	_, err := k.runtime().UpdatePodSandboxResources(k.ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "ffffffffffff", Resources: memory(1)})
	k.refused(err, codes.NotFound, "ffffffffffff")
	_, err = k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.must(err)
	k.refused(update(nil, memory(500)), codes.FailedPrecondition, "not ready")
}

// showLimits is what a container sees of its limits.
const showLimits = `cd /sys/fs/cgroup; echo $(cat memory.max cpu.max cpu.weight)`

// sees checks what a running container sees of its limits.
func (k limitsKit) sees(id, want string) {
	k.Helper()
	if got := strings.TrimSpace(k.exec(id, showLimits)); got != want {
		k.Errorf("the container sees %q, want %q", got, want)
	}
}

func TestLimitsAreSeenByContainers(t *testing.T) {
	k := limitsKit{newKit(t)}
	id, pod := k.pod()
	c := k.shell("a", showLimits+"; exec sleep 600", withResources(
		&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512}))
	a := k.start(id, pod, c)
	k.logHas(pod, c, "67108864 50000 100000 59")
	c = k.shell("b", showLimits+"; exec sleep 600")
	b, err := k.create(id, pod, c)
	k.must(err)
	k.must(k.update(b, memory(32)))
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: b})
	k.must(err)
	k.logHas(pod, c, "33554432 max 100000 100")
	k.must(k.update(a, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 * mib, CpuQuota: -1, CpuShares: 2}))
	k.sees(a, "100663296 max 100000 1")
	k.sees(b, "33554432 max 100000 100")

	// What cannot be shown has not been done.
	k.refused(k.update(a, &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: 128 * mib, Unified: map[string]string{"memory.high": "much"},
	}), codes.InvalidArgument, "memory.high")
	k.sees(a, "100663296 max 100000 1")
	k.wantLimits(id, (96+32)*mib+sandboxMemory, -1)
	if r := k.status(a).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 96*mib || len(r.GetUnified()) != 0 {
		t.Errorf("after a refused update: %v", r)
	}
}

func TestUpdateContainerResourcesOutlivesTheDaemon(t *testing.T) {
	k := limitsKit{ownNode(t, nodeOptions)}
	id, pod := k.pod()
	a := k.start(id, pod, k.shell("a", "exec sleep 600", withResources(memory(64))))
	k.must(k.update(a, memory(127)))
	dirs := k.cgroups(id)
	k.must(k.env.Kill())
	// As if it had died between the record and all else.
	status := filepath.Join(k.env.Root, "pods", id, a, "status.json")
	changed := strings.ReplaceAll(readFile(k.kit, status), strconv.Itoa(127*mib), strconv.Itoa(128*mib))
	k.must(os.WriteFile(status, []byte(changed), 0o600))
	for _, dir := range dirs {
		for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
			if f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0); err == nil {
				_, err = fmt.Fprint(f, 100*mib)
				k.must(errors.Join(err, f.Close()))
			}
		}
	}
	_, err := k.env.Start(k.ctx)
	k.must(err)
	if r := k.status(a).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 128*mib {
		t.Errorf("the container's resources are %v", r)
	}
	k.wantLimits(id, 128*mib+sandboxMemory, -1)
	for deadline := time.Now().Add(limit); !strings.HasPrefix(k.exec(a, showLimits), strconv.Itoa(128*mib)); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the container sees %q", k.exec(a, showLimits))
		}
	}
	k.must(k.update(a, memory(256)))
	k.wantLimits(id, 256*mib+sandboxMemory, -1)
	k.sees(a, "268435456 max 100000 100")
}

func TestUpdateContainerResourcesBadRequests(t *testing.T) {
	k := limitsKit{newKit(t)}
	id, pod := k.pod()
	a := k.start(id, pod, k.shell("a", eat(40), withResources(memory(100))))
	k.logHas(pod, k.shell("a", ""), "eaten")
	k.refused(k.update("ffffffffffff", memory(1)), codes.NotFound, "ffffffffffff")
	k.refused(k.update(a, nil), codes.InvalidArgument, "Linux")
	k.refused(k.update(a, &runtimeapi.LinuxContainerResources{CpuQuota: -2}), codes.InvalidArgument, "quota")
	k.refused(k.update(a, &runtimeapi.LinuxContainerResources{CpusetCpus: "all"}), codes.InvalidArgument, "all")
	k.refused(k.update(a, &runtimeapi.LinuxContainerResources{
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1 << 21}},
	}), codes.FailedPrecondition, "not possible in a gVisor sandbox")
	// What it uses is not taken from it.
	k.refused(k.update(a, memory(20)), codes.FailedPrecondition, "uses")
	// The kernel refuses a CPU that there is not: nothing has changed, the memory neither.
	k.refused(k.update(a, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 200 * mib, CpusetCpus: "4000"}), codes.InvalidArgument, "4000")
	if r := k.status(a).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 100*mib || r.GetCpusetCpus() != "" {
		t.Errorf("after refused updates: %v", r)
	}
	k.wantLimits(id, 100*mib+sandboxMemory, -1)
	ended := k.start(id, pod, k.shell("ended", "true"))
	k.wait(ended)
	k.refused(k.update(ended, memory(1)), codes.FailedPrecondition, "exited")
}

// TestCrictlUpdate: the tool of the operator reaches it, too.
func TestCrictlUpdate(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	a := k.start(id, pod, k.shell("a", "exec sleep 600", withResources(memory(64))))
	_, err := k.env.Crictl(k.ctx, "update", "--memory", strconv.Itoa(80*mib), "--cpu-quota", "30000", "--cpu-period", "100000", a)
	k.must(err)
	limitsKit{k}.wantLimits(id, 80*mib+sandboxMemory, 30000)
}

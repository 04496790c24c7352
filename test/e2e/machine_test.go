package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestLimitsOfAPodAreTheSizeOfItsMachine: a program that sizes itself by its
// machine must see what it may use.
func TestLimitsOfAPodAreTheSizeOfItsMachine(t *testing.T) {
	k := newKit(t)
	const limit = 300 << 20
	g := limitsKit{k}.parentGroup("machine")
	k.must(g.set(limit, 300000)) // as the kubelet's, before it runs the pod
	id, pod := k.pod(g.below(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: limit}))
	out := k.run(id, pod, k.shell("a", "grep MemTotal /proc/meminfo; nproc"))
	if memTotal(k, out) != limit {
		t.Errorf("the pod sees %q, its limit is %d KiB", out, limit>>10)
	}
	if cpus := min(3, runtime.NumCPU()); !strings.HasSuffix(strings.TrimSpace(out), fmt.Sprintf("\n%d", cpus)) {
		t.Errorf("the pod sees %q, its quota is that of %d CPUs", out, cpus)
	}
}

// TestOOMOfAPodIsReported, although the kernel kills the sandbox as a whole.
func TestOOMOfAPodIsReported(t *testing.T) {
	k := newKit(t)
	g := limitsKit{k}.parentGroup("small")
	k.must(g.set(128<<20, -1))
	id, pod := k.pod(g.below(nil))
	st := k.wait(k.start(id, pod, k.shell("eats", "head -c 1000000000 /dev/zero > /dev/shm/x; head -c 1000000000 /dev/zero | tail")))
	if st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("status = %v", st)
	}
}

func TestCNIDualStack(t *testing.T) {
	k := ownNode(t, testenv.Options{DualStack: true})
	id, _ := k.pod()
	resp, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	k.must(err)
	net := resp.Status.Network
	v4, err := netip.ParseAddr(net.Ip)
	k.must(err)
	if !k.env.Subnet.Contains(v4) || len(net.AdditionalIps) != 1 {
		t.Fatalf("network = %v", net)
	}
	v6, err := netip.ParseAddr(net.AdditionalIps[0].Ip)
	k.must(err)
	if !k.env.Subnet6.Contains(v6) {
		t.Errorf("network = %v", net)
	}
}

// TestSeccompDefaultAllowsThreads: the C library tries clone3 and falls back
// only when the answer is ENOSYS. The program is the node's own perl.
func TestSeccompDefaultAllowsThreads(t *testing.T) {
	const perl = "/usr/bin/perl"
	if _, err := os.Stat(perl); err != nil {
		t.Skip("needs perl, a program of the C library that has threads")
	}
	k := newKit(t)
	id, pod := k.pod()
	c := testenv.ContainerConfig("threads", k.env.Images["busybox"], perl, "-Mthreads", "-e", `threads->create(sub { print "in a thread\n" })->join`)
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/etc/perl"} {
		if _, err := os.Stat(dir); err == nil {
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: dir, HostPath: dir, Readonly: true})
		}
	}
	security(c).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	k.wants(k.run(id, pod, c), "in a thread")
}

// TestOOMScoreIsOfTheMostImportantContainer: all of a pod is one process to
// the node's kernel.
func TestOOMScoreIsOfTheMostImportantContainer(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	score := func(n int64) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{OomScoreAdj: n}}
		}
	}
	path := "/proc/" + sandboxPID(k, id) + "/oom_score_adj"
	k.start(id, pod, k.shell("a", "exec sleep 600", score(900)))
	if got := strings.TrimSpace(readFile(k, path)); got != "900" {
		t.Errorf("score %s with one container of 900", got)
	}
	b := k.start(id, pod, k.shell("b", "exec sleep 600", score(700)))
	k.must(limitsKit{k}.update(b, &runtimeapi.LinuxContainerResources{OomScoreAdj: 500}))
	if got := strings.TrimSpace(readFile(k, path)); got != "500" {
		t.Errorf("score %s with containers of 900 and 500", got)
	}
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: b})
	k.must(err)
	for deadline := time.Now().Add(5 * time.Second); strings.TrimSpace(readFile(k, path)) != "900"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("score %s after the end of the container of 500", readFile(k, path))
		}
	}
}

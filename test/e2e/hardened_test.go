package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestDaemonWithItsUnitsBoundingSet runs a daemon with the capabilities that the
// installed service has, through what needs them most.
func TestDaemonWithItsUnitsBoundingSet(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv, of util-linux")
	}
	repo, err := testenv.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	wrapper := filepath.Join(dir, "cri-sandbox")
	script := fmt.Sprintf("#!/bin/sh\nulimit -c 0\nexec %s --bounding-set=-all%s -- %s/bin/cri-sandbox \"$@\"\n", setpriv, unitCaps(t, repo), repo)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	k := ownNode(t, testenv.Options{Binary: wrapper, DaemonArgs: nodeOptions.DaemonArgs})
	status := readFile(k, fmt.Sprintf("/proc/%d/status", k.env.Daemon.PID()))
	var bounding uint64
	if _, err := fmt.Sscanf(field(status, "CapBnd"), "%x", &bounding); err != nil || bounding&(1<<unix.CAP_SYS_MODULE) != 0 || bounding&(1<<unix.CAP_SYS_ADMIN) == 0 {
		t.Fatalf("the daemon runs with %#x, %v", bounding, err)
	}
	for name, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"plain": func(p *runtimeapi.PodSandboxConfig) {
			p.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 20555}}
			p.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000"}
			p.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 300 << 20, CpuQuota: 100000, CpuPeriod: 100000}
		},
		"user namespace": ownUsers,
		"node's network": func(p *runtimeapi.PodSandboxConfig) {
			p.Hostname = ""
			p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: nodeNetwork}
		},
	} {
		id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
			change(p)
			p.Metadata.Name += strings.NewReplacer(" ", "-", "'", "").Replace(name)
		})
		cid := k.start(id, pod, k.shell("a", "exec sleep 600", func(c *runtimeapi.ContainerConfig) {
			if pod.Linux.GetSecurityContext().GetNamespaceOptions() == nodeNetwork {
				security(c).NamespaceOptions = nodeNetwork
			}
			if name == "user namespace" {
				security(c).NamespaceOptions = pod.Linux.SecurityContext.NamespaceOptions
			}
		}))
		k.wants(k.exec(cid, "id; touch /made /dev/shm/made"), "uid=0(root)")
		// The next daemon takes it over, and its streams.
		_, err := k.env.Restart(k.ctx)
		k.must(err)
		k.wants(k.exec(cid, "echo again"), "again")
		k.must(k.env.Client.RemovePod(k.ctx, id))
		k.must(os.RemoveAll(pod.LogDirectory))
	}
	if c := k.check(); len(c.Left) != 0 {
		t.Errorf("left: %+v", c.Left)
	}
	k.must(k.env.Audit(k.ctx))
}

var nodeNetwork = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}

// unitCaps reads the bounding set, in the form of setpriv.
func unitCaps(t *testing.T, repo string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repo, "hack", "install", "cri-sandbox.service"))
	if err != nil {
		t.Fatal(err)
	}
	var caps strings.Builder
	for line := range strings.Lines(string(raw)) {
		if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			for _, name := range strings.Fields(set) {
				caps.WriteString(",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_")))
			}
		}
	}
	return caps.String()
}

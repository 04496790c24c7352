package e2e

import (
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var jump = regexp.MustCompile(`-j (CNI-[0-9a-zA-Z-]+)$`)

// TestLeaksOfChainsAreSeen: the audit of this test recognises the chains that
// the plugins make for a pod, when no rule says any more whose they are.
func TestLeaksOfChainsAreSeen(t *testing.T) {
	if _, err := exec.LookPath("iptables-save"); err != nil {
		t.Skip("needs iptables: with nftables the plugins make no chain for a pod")
	}
	k := newKit(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	k.must(err)
	port := int32(l.Addr().(*net.TCPAddr).Port)
	k.must(l.Close())
	id, _ := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: port}}
	})
	before, err := k.env.Observe()
	k.must(err)
	saved, err := exec.Command("iptables-save", "-t", "nat").Output()
	k.must(err)
	script, chains := "*nat\n", map[string]bool{}
	for line := range strings.Lines(string(saved)) {
		line = strings.TrimSpace(line)
		to := jump.FindStringSubmatch(line)
		if rule, is := strings.CutPrefix(line, "-A "); is && to != nil && strings.Contains(line, id) {
			script += "-D " + rule + "\n-F " + to[1] + "\n"
			chains[to[1]] = true
		}
	}
	if len(chains) != 2 {
		t.Fatalf("want a chain to masquerade and one of the port, the pod has %v", chains)
	}
	cmd := exec.Command("iptables-restore", "--noflush", "--wait", "5")
	cmd.Stdin = strings.NewReader(script + "COMMIT\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	now, err := k.env.Observe()
	k.must(err)
	seen := strings.Join(now.Since(before), "\n")
	for chain := range chains {
		k.wants(seen, "chain: iptables-save nat "+chain)
	}
}

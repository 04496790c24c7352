package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestContainerReachesNothingOfTheNode: neither what listens on the node's
// loopback, nor any Unix socket, by path or abstract, the daemon's and its own
// sandbox's among them, nor files that were not mounted.
func TestContainerReachesNothingOfTheNode(t *testing.T) {
	k := newKit(t)
	prog := buildReach(k)
	id, pod := k.pod()
	other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name += "-other" })
	k.start(other, otherPod, k.shell("other", "echo > /"+k.env.Name+"-secret; exec sleep 600"))
	k.must(os.WriteFile(filepath.Join(k.env.Dir, k.env.Name+"-secret"), nil, 0o644))
	targets := nodeTargets(k, id)
	for _, target := range targets {
		network, address, _ := strings.Cut(target, ":")
		if conn, err := net.Dial(network, address); err != nil {
			t.Fatalf("not even the node reaches %s: %v", target, err)
		} else {
			conn.Close()
		}
	}
	out := k.run(id, pod, reach(k, prog, targets))
	if strings.TrimSpace(out) != "done" {
		t.Errorf("from inside:\n%s", out)
	}

	// The program does find what is there: a pod on the node's network reaches
	// the node's loopback, which is what that means.
	node := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	hostID, host := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Metadata.Name, p.Hostname = p.Metadata.Name+"-host", ""
		p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: node}
	})
	c := reach(k, prog, targets)
	security(c).NamespaceOptions = node
	for line := range strings.Lines(k.run(hostID, host, c)) {
		if line = strings.TrimSpace(line); line != "done" && !strings.HasPrefix(line, "reached tcp:") {
			t.Errorf("on the node's network: %s", line)
		}
	}
	k.wants(k.log(host, c), "reached "+targets[0])
	c.Metadata.Name, c.LogPath = "seen", "seen.log"
	c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: "/mnt", HostPath: k.env.Dir, Readonly: true})
	k.wants(k.run(hostID, host, c), "found /mnt/"+k.env.Name+"-secret", "found /mnt/run/cri.sock")
}

func buildReach(k kit) string {
	k.Helper()
	dir := k.TempDir()
	k.must(os.Chmod(dir, 0o755))
	prog := filepath.Join(dir, "reach")
	build := exec.CommandContext(k.ctx, "go", "build", "-o", prog, "./testdata/reach")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		k.Fatalf("%v: %s", err, out)
	}
	return prog
}

// nodeTargets listens on the node, and adds what the daemon and the pod's sandbox
// listen on. The first is on 127.0.0.1.
func nodeTargets(k kit, pod string) []string {
	k.Helper()
	var targets []string
	for _, l := range [][2]string{
		{"tcp", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"unix", "@" + k.env.Name}, {"unix", filepath.Join(k.env.Dir, "reach.sock")},
	} {
		listener, err := net.Listen(l[0], l[1])
		if err != nil && strings.HasPrefix(l[1], "[::1]") {
			continue // a node without IPv6
		}
		k.must(err)
		k.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		targets = append(targets, l[0]+":"+listener.Addr().String())
	}
	control := filepath.Join(k.env.Dir, "control.sock") // its own path is longer than an address
	k.must(os.Symlink(filepath.Join(k.env.State, "pods", pod, "engine", "control.sock"), control))
	k.Cleanup(func() { os.Remove(control) })
	targets = append(targets, "unix:"+k.env.Socket, "unix:"+control)
	url := streamKit{k}.execURL(k.start(pod, k.env.PodConfig("x"), k.shell("target", "exec sleep 600")), false, "true")
	host := strings.Split(strings.TrimPrefix(url, "http://"), "/")[0]
	return append(targets, "tcp:"+host)
}

// reach is a container that runs the program, mounted beside the image's files.
func reach(k kit, prog string, targets []string) *runtimeapi.ContainerConfig {
	c := testenv.ContainerConfig("reach", k.env.Images["busybox"], append([]string{"/probe/reach", k.env.Name + "-secret"}, targets...)...)
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/probe", HostPath: filepath.Dir(prog), Readonly: true}}
	return c
}

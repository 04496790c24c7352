package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestLeaksOfAHundredPods makes and removes pods with all that pods have:
// port mappings, mounts, two containers, one of them stopped and one not.
func TestLeaksOfAHundredPods(t *testing.T) {
	k := ownNode(t, nodeOptions)
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o755))
	round := func(i int) {
		pod := k.env.PodConfig(fmt.Sprintf("leak-%d", i))
		pod.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: int32(20000 + i%100)}}
		id, err := k.env.Client.RunPod(k.ctx, pod)
		k.must(err)
		mount := func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: filepath.Join(dir)}}
		}
		k.wait(k.start(id, pod, k.shell("short", "echo x", mount)))
		k.start(id, pod, k.shell("long", "exec sleep 600", mount))
		k.must(k.env.Client.RemovePod(k.ctx, id))
		k.must(os.RemoveAll(pod.LogDirectory))
	}
	round(0) // what the first pod makes once for all stays
	k.must(k.env.MarkBaseline())
	fds := countFDs(k)
	for i := 1; i <= 100; i++ {
		round(i)
	}
	k.must(k.env.Audit(k.ctx))
	if now := countFDs(k); now > fds+8 {
		t.Errorf("the daemon has %d descriptors, %d before", now, fds)
	}
}

func countFDs(k kit) int {
	k.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", k.env.Daemon.PID()))
	k.must(err)
	return len(entries)
}

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// hangingNetwork makes the node's network one of a plugin that runs a script. What
// it returns is the configuration's file, and what stood in it.
func hangingNetwork(k kit, script string) (conf, healthy string) {
	k.Helper()
	conf = onlyConf(k)
	healthy = readFile(k, conf)
	plugin := filepath.Join(k.env.CNIBinDir, "hangs")
	k.must(os.WriteFile(plugin, []byte("#!/bin/sh\n"+script), 0o755))
	k.Cleanup(func() { os.Remove(plugin) })
	k.must(os.WriteFile(conf, []byte(`{"cniVersion":"1.0.0","name":"hangs","plugins":[{"type":"hangs"}]}`), 0o644))
	return conf, healthy
}

// TestRunPodSandboxHungPluginCostsOnlyItsPod: while the plugin hangs, all else that a
// caller asks for is answered, attaching another pod included.
func TestRunPodSandboxHungPluginCostsOnlyItsPod(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	ok, pod := k.pod()
	dir := t.TempDir()
	// The one that undoes it ends.
	conf, healthy := hangingNetwork(k, fmt.Sprintf("[ $CNI_COMMAND = ADD ] || exit 0\ntouch %[1]s/hangs\nwhile [ ! -e %[1]s/go ]; do sleep 0.1; done\nexit 1\n", dir))
	ended := make(chan error, 1)
	go func() {
		_, err := k.runtime().RunPodSandbox(k.ctx, &runtimeapi.RunPodSandboxRequest{Config: k.env.PodConfig("hangs")})
		ended <- err
	}()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "hangs")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the plugin was not run")
		}
	}
	k.must(os.WriteFile(conf, []byte(healthy), 0o644))
	k.wants(k.run(ok, pod, k.shell("a", "echo fine")), "fine")
	list, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{})
	k.must(err)
	if len(list.Items) != 1 {
		t.Errorf("pods %v, want one", list.Items)
	}
	_, err = k.runtime().ListPodSandboxStats(k.ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	k.must(err)
	_, err = k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{})
	k.must(err)
	other, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("meanwhile"))
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, other))
	select {
	case err := <-ended:
		t.Errorf("the plugin does not hang any more: %v", err)
		return
	default:
	}
	k.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	k.refused(<-ended, codes.Unavailable, "network")
}

// TestRunPodSandboxHungPluginIsGivenUp after the timeout of networks, whatever the
// others are.
func TestRunPodSandboxHungPluginIsGivenUp(t *testing.T) {
	k := ownNode(t, testenv.Options{Config: "[timeouts]\nnetwork = '2s'\nsandbox = '10m'\n"})
	conf, healthy := hangingNetwork(k, "exec sleep 600\n")
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	_, err := k.runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: k.env.PodConfig("hangs")})
	k.refused(err, codes.DeadlineExceeded, "network") // not by the caller's own deadline
	k.must(os.WriteFile(conf, []byte(healthy), 0o644))
	k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "after" })
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// printOnce is a container that says a line and then waits to be told to go.
const printOnce = `trap 'exit 0' TERM; echo ready; sleep 1000000 & wait`

// pod is a running pod with its one container.
type pod struct {
	id, container string
	config        *runtimeapi.PodSandboxConfig
	log           string
}

// timing is how long each step to a ready pod took.
type timing struct{ run, create, start, ready time.Duration }

// newPod makes a pod whose container runs a shell script, and returns when the
// first line of it is in the log.
func (t *target) newPod(ctx context.Context, image, script string, mounts ...*runtimeapi.Mount) (pod, timing, error) {
	uid := testenv.NewUID()
	name := fmt.Sprintf("bench-%d-%s", t.serial.Add(1), uid[:6])
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: uid},
		Hostname:     name,
		LogDirectory: filepath.Join(t.logDir, uid),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: t.cgroup},
	}
	ctr := testenv.ContainerConfig("main", image, "/bin/sh", "-c", script)
	ctr.Mounts = mounts
	p := pod{config: cfg, log: testenv.LogPath(cfg, ctr)}
	var tm timing

	begin := time.Now()
	r, err := t.client.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: t.handler})
	if err != nil {
		return p, tm, fmt.Errorf("run pod: %w", err)
	}
	p.id, tm.run = r.PodSandboxId, time.Since(begin)

	mark := time.Now()
	c, err := t.client.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: ctr, SandboxConfig: cfg})
	if err != nil {
		return p, tm, fmt.Errorf("create container: %w", err)
	}
	p.container, tm.create = c.ContainerId, time.Since(mark)

	mark = time.Now()
	if _, err := t.client.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.container}); err != nil {
		return p, tm, fmt.Errorf("start container: %w", err)
	}
	tm.start = time.Since(mark)

	if err := waitSize(ctx, p.log, 1); err != nil {
		return p, tm, err
	}
	tm.ready = time.Since(begin)
	return p, tm, nil
}

// removePod removes the pod without a graceful stop of its container.
func (t *target) removePod(ctx context.Context, p pod) error {
	if err := t.client.RemovePod(ctx, p.id); err != nil {
		return err
	}
	return os.RemoveAll(p.config.LogDirectory)
}

// waitSize looks each half millisecond until the file has size bytes, for at most
// half a minute.
func waitSize(ctx context.Context, path string, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if fi, err := os.Stat(path); err == nil && fi.Size() >= size {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-time.After(500 * time.Microsecond):
		}
	}
}

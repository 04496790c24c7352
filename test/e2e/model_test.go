package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/model"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestModel runs random programs on real sandboxes, with kills of the daemon while
// it works. What makes a request fail on the engine in memory, too, is found there
// first (hack/model); this is for what that engine cannot show.
func TestModel(t *testing.T) {
	k := ownNode(t, nodeOptions)
	_, err := k.env.Restart(k.ctx) // with a cold image store, too
	k.must(err)
	model.Check(t, model.Plan{
		New:   func(t testing.TB) (model.Target, func() error) { return modelTarget(t, k.env) },
		Steps: 25, Duration: 30 * time.Second, Shrink: 3 * time.Minute,
	})
}

// modelTarget is a node without pods and images of the model's.
func modelTarget(t testing.TB, env *testenv.Env) (model.Target, func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	clean := func(ctx context.Context) error {
		if env.DaemonPID() == 0 {
			if _, err := env.Start(ctx); err != nil {
				return err
			}
		}
		list, err := env.Client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if err := env.Client.RemovePod(ctx, p.Id); err != nil {
				return err
			}
		}
		return nil
	}
	images := []string{env.Images["busybox"], env.Images["nonroot"]}
	for _, ref := range images {
		if _, err := env.Client.Image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := env.MarkBaseline(); err != nil {
		t.Fatal(err)
	}
	return model.Target{
			Runtime: env.Client.Runtime, Image: env.Client.Image, Images: images,
			Pod:  func(place int) *runtimeapi.PodSandboxConfig { return modelPod(env, place) },
			Kill: env.Kill, Start: func(ctx context.Context) error { _, err := env.Start(ctx); return err }, AtOnce: true,
			KillSandbox: func(ctx context.Context, id string) error { return killSandbox(ctx, env, id) },
			Left: func(ctx context.Context) ([]string, error) {
				if err := env.Audit(ctx); err != nil {
					return []string{err.Error()}, nil
				}
				return nil, nil
			},
			Patience: 30 * time.Second,
		}, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			return clean(ctx)
		}
}

func modelPod(env *testenv.Env, place int) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("pod%d", place), Namespace: "model", Uid: fmt.Sprint(place)},
		LogDirectory: filepath.Join(env.LogDir, fmt.Sprint("model", place)),
		Labels:       map[string]string{"place": fmt.Sprint(place)},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: env.CgroupParent},
	}
}

// killSandbox kills the process of a pod's sandbox.
func killSandbox(ctx context.Context, env *testenv.Env, id string) error {
	resp, err := env.Client.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil || resp.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil // it is gone
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(info.PID, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	// Between the answer and the descriptor another process may have got the pid.
	again, err := env.Client.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil || again.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	return nil
}

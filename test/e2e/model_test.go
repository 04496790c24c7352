package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/model"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// raceDaemon is the daemon with the race detector, relative to the repository; `make
// race` builds it.
const raceDaemon = "bin/race/cri-sandbox"

// raceNode is a node for programs of the model: its daemon ends at the first data race.
func raceNode(t *testing.T, config string) *testenv.Env {
	t.Helper()
	binary := filepath.Join(node.Repo, raceDaemon)
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("find the daemon with the race detector: %v (run `make race`)", err)
	}
	k := ownNode(t, testenv.Options{
		Binary: binary, Config: config,
		DaemonArgs: nodeOptions.DaemonArgs, DaemonEnv: []string{"GORACE=halt_on_error=1 exitcode=66"},
	})
	_, err := k.env.Restart(k.ctx) // with a cold image store, too
	k.must(err)
	return k.env
}

// TestModel runs random programs on real sandboxes, with kills of the daemon while
// it works. What makes a request fail on the engine in memory, too, is found there
// first (hack/model); this is for what that engine cannot show, and for data races.
func TestModel(t *testing.T) {
	env := raceNode(t, "")
	model.Check(t, model.Plan{
		New:   func(t testing.TB) (model.Target, func() error) { return modelTarget(t, env, modelPod) },
		Steps: 25, Duration: 30 * time.Second, Shrink: 3 * time.Minute,
	})
}

// TestModelVariants runs random programs in configurations in which all answers have
// to be the same. All but the first restart the daemon between requests.
func TestModelVariants(t *testing.T) {
	env := raceNode(t, "")
	onHost := raceNode(t, "[containers]\nwritable_layer = 'host'\nmemory_volumes = 'host'\n")
	variant := func(name string, env *testenv.Env, change func(*runtimeapi.NamespaceOption)) model.Variant {
		return model.Variant{Name: name, New: func(t testing.TB) (model.Target, func() error) {
			return modelTarget(t, env, func(env *testenv.Env, place int) *runtimeapi.PodSandboxConfig {
				cfg := modelPod(env, place)
				cfg.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}}
				change(cfg.Linux.SecurityContext.NamespaceOptions)
				return cfg
			})
		}}
	}
	unchanged := func(*runtimeapi.NamespaceOption) {}
	model.Check(t, model.Plan{
		New: variant("", env, unchanged).New,
		Variants: []model.Variant{
			variant("restarts", env, unchanged),
			variant("user namespace", env, func(o *runtimeapi.NamespaceOption) { o.UsernsOptions = model.UserNamespace() }),
			variant("host network", env, func(o *runtimeapi.NamespaceOption) { o.Network = runtimeapi.NamespaceMode_NODE }),
			variant("layers on the host", onHost, unchanged),
		},
		Steps: 25, Duration: 45 * time.Second, Shrink: 5 * time.Minute,
	})
}

// races fails when the daemon's log tells of a data race: of one that was killed soon
// after, nothing else does.
func races(env *testenv.Env) error {
	log, err := os.ReadFile(env.LogFile())
	if err != nil {
		return err
	}
	if i := bytes.Index(log, []byte("WARNING: DATA RACE")); i >= 0 {
		return fmt.Errorf("the daemon has a data race:\n%s", log[i:])
	}
	return nil
}

// modelTarget is a node without pods and images of the model's.
func modelTarget(t testing.TB, env *testenv.Env, pod func(*testenv.Env, int) *runtimeapi.PodSandboxConfig) (model.Target, func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	clean := func(ctx context.Context) error {
		if env.Daemon.PID() == 0 {
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
			Pod:  func(place int) *runtimeapi.PodSandboxConfig { return pod(env, place) },
			Kill: env.Kill, Start: func(ctx context.Context) error { _, err := env.Start(ctx); return err }, AtOnce: true,
			KillSandbox: func(ctx context.Context, id string) error { return killSandbox(ctx, env, id) },
			Left: func(ctx context.Context) ([]string, error) {
				if err := env.Audit(ctx); err != nil {
					return []string{err.Error()}, nil
				}
				return nil, nil
			},
			Own:      []string{env.Name, env.Registry},
			Fault:    func() error { return races(env) },
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

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// kit is a test's hold on a node: calls that must succeed, and clean-up.
type kit struct {
	*testing.T
	env *testenv.Env
	ctx context.Context
}

func newKit(t *testing.T) kit { return newKitOn(t, node) }

func newKitOn(t *testing.T, env *testenv.Env) kit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return kit{T: t, env: env, ctx: ctx}
}

// ownNode makes a node for a test that breaks it.
func ownNode(t *testing.T, opts testenv.Options) kit {
	t.Helper()
	k := emptyNode(t, opts)
	k.must(pullAll(k.ctx, k.env))
	k.must(k.env.MarkBaseline())
	return k
}

// emptyNode is ownNode without images.
func emptyNode(t *testing.T, opts testenv.Options) kit {
	t.Helper()
	env, err := testenv.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the daemon's log:\n%s", env.LogTail(40))
		}
		if err := env.Close(); err != nil {
			t.Errorf("tear down the node: %v", err)
		}
	})
	return newKitOn(t, env)
}

func (k kit) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// runtime is the client of the runtime service.
func (k kit) runtime() runtimeapi.RuntimeServiceClient { return k.env.Client.Runtime }

// pod runs a pod and removes it with the test.
func (k kit) pod(change ...func(*runtimeapi.PodSandboxConfig)) (string, *runtimeapi.PodSandboxConfig) {
	k.Helper()
	cfg := k.env.PodConfig(strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(k.Name())))
	if len(cfg.Metadata.Name) > 50 {
		cfg.Metadata.Name = cfg.Metadata.Name[:50]
	}
	if len(cfg.Hostname) > 50 {
		cfg.Hostname = cfg.Hostname[:50]
	}
	for _, f := range change {
		f(cfg)
	}
	id, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	k.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := k.env.Client.RemovePod(ctx, id); err != nil {
			k.Errorf("remove pod: %v", err)
		}
	})
	return id, cfg
}

// shell is the config of a busybox container that runs a script.
func (k kit) shell(name, script string, change ...func(*runtimeapi.ContainerConfig)) *runtimeapi.ContainerConfig {
	c := testenv.ContainerConfig(name, k.env.Images["busybox"], "/bin/sh", "-c", script)
	for _, f := range change {
		f(c)
	}
	return c
}

// start creates and starts a container.
func (k kit) start(podID string, pod *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	k.Helper()
	id, err := k.env.Client.RunContainer(k.ctx, podID, pod, c)
	k.must(err)
	return id
}

// create creates a container.
func (k kit) create(podID string, pod *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) (string, error) {
	resp, err := k.runtime().CreateContainer(k.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: c, SandboxConfig: pod})
	return resp.GetContainerId(), err
}

// wait returns the status of a container that has ended.
func (k kit) wait(id string) *runtimeapi.ContainerStatus {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	st, err := k.env.Client.WaitContainer(ctx, id, runtimeapi.ContainerState_CONTAINER_EXITED)
	k.must(err)
	return st
}

// status returns the status of a container.
func (k kit) status(id string) *runtimeapi.ContainerStatus {
	k.Helper()
	resp, err := k.runtime().ContainerStatus(k.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	k.must(err)
	return resp.Status
}

// run runs a script in a new container of a pod to its end and returns what it
// printed. The exit code has to be 0.
func (k kit) run(podID string, pod *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	k.Helper()
	id := k.start(podID, pod, c)
	st := k.wait(id)
	out := k.log(pod, c)
	if st.ExitCode != 0 {
		k.Fatalf("exit code %d (%s: %s), output:\n%s", st.ExitCode, st.Reason, st.Message, out)
	}
	return out
}

// log returns what a container has printed so far.
func (k kit) log(pod *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	k.Helper()
	out, err := testenv.ReadLog(testenv.LogPath(pod, c))
	k.must(err)
	return out
}

// logHas waits until a container has printed want.
func (k kit) logHas(pod *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig, want string) string {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	out, err := testenv.WaitLog(ctx, testenv.LogPath(pod, c), want)
	k.must(err)
	return out
}

// exec runs a script in a running container and returns its stdout.
func (k kit) exec(id, script string) string {
	k.Helper()
	out, err := k.env.Client.Exec(k.ctx, id, "/bin/sh", "-c", script)
	k.must(err)
	return out
}

// refused checks the code of an error and that its text holds all the words.
func (k kit) refused(err error, code codes.Code, words ...string) {
	k.Helper()
	if status.Code(err) != code {
		k.Errorf("error %v, want code %v", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			k.Errorf("error %q does not say %q", err, w)
		}
	}
}

// wants checks that a text holds all the words.
func (k kit) wants(text string, words ...string) {
	k.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			k.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func security(c *runtimeapi.ContainerConfig) *runtimeapi.LinuxContainerSecurityContext {
	if c.Linux == nil {
		c.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	if c.Linux.SecurityContext == nil {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{}
	}
	return c.Linux.SecurityContext
}

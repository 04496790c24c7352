package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// life is what a caller does between two empty nodes, call by call. Each call can
// be made again after a daemon died in it.
type life struct {
	env *testenv.Env

	pod          *runtimeapi.PodSandboxConfig
	ctr          *runtimeapi.ContainerConfig
	podID, ctrID string
}

type call struct {
	name string
	do   func(*life, context.Context) error
}

// lives are the ways to walk through the daemon. Together they get to each step.
var lives = map[string][]call{
	"pod": {
		{"run", (*life).run}, {"create", (*life).create}, {"start", (*life).start}, {"output", (*life).output},
		{"exec", (*life).exec}, {"stop container", (*life).stopContainer}, {"log", (*life).log},
		{"remove container", (*life).removeContainer}, {"stop", (*life).stop}, {"remove", (*life).remove},
	},
	"death": {
		{"run", (*life).run}, {"create", (*life).create}, {"start", (*life).start}, {"output", (*life).output},
		{"kill sandbox", (*life).killSandbox}, {"dead", (*life).dead}, {"log", (*life).log},
		{"stop", (*life).stop}, {"remove", (*life).remove},
	},
	"shared": {
		{"run", (*life).run}, {"neighbour", (*life).neighbour}, {"create", (*life).create}, {"start", (*life).start},
		{"joined", (*life).joined}, {"output", (*life).output}, {"stop", (*life).stop}, {"log", (*life).log}, {"remove", (*life).remove},
	},
	"image": {
		{"pull", (*life).pull}, {"image", (*life).image}, {"remove image", (*life).removeImage},
	},
}

// lifeLines is how many lines a container prints: more than a spool keeps.
const lifeLines = 20000

func newLife(env *testenv.Env) *life {
	script := fmt.Sprintf(`trap "exit 3" TERM; seq 1 %d; echo end; while :; do sleep 0.02; done`, lifeLines)
	return &life{
		env: env, pod: env.PodConfig("crash"),
		ctr: testenv.ContainerConfig("c", env.Images["busybox"], "/bin/sh", "-c", script),
	}
}

func (l *life) runtime() runtimeapi.RuntimeServiceClient { return l.env.Client.Runtime }

func (l *life) run(ctx context.Context) (err error) {
	l.podID, err = l.env.Client.RunPod(ctx, l.pod)
	return err
}

func (l *life) create(ctx context.Context) error {
	r, err := l.runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: l.podID, Config: l.ctr, SandboxConfig: l.pod})
	l.ctrID = r.GetContainerId()
	return err
}

// start accepts the refusal that says that the container runs: the earlier call
// did get there.
func (l *life) start(ctx context.Context) error {
	_, err := l.runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: l.ctrID})
	if status.Code(err) == codes.FailedPrecondition && l.state(ctx) == runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	return err
}

func (l *life) state(ctx context.Context) runtimeapi.ContainerState {
	r, err := l.runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: l.ctrID})
	if err != nil {
		return runtimeapi.ContainerState_CONTAINER_UNKNOWN
	}
	return r.Status.State
}

func (l *life) output(ctx context.Context) error {
	_, err := testenv.WaitLog(ctx, testenv.LogPath(l.pod, l.ctr), "end\n")
	return err
}

// log finds each line once.
func (l *life) log(context.Context) error {
	text, err := testenv.ReadLog(testenv.LogPath(l.pod, l.ctr))
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		want := strconv.Itoa(n) + "\n"
		if n == lifeLines+1 {
			want = "end\n"
		}
		if line != want {
			return fmt.Errorf("line %d of the log is %q", n, line)
		}
	}
	if n != lifeLines+1 {
		return fmt.Errorf("the log has %d lines, not %d", n, lifeLines+1)
	}
	return nil
}

// neighbour runs a container that has a volume, which the other one is to have, too.
func (l *life) neighbour(ctx context.Context) error {
	dir := filepath.Join(l.env.Dir, "crash-volume")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	l.ctr.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: dir}}
	n := newLife(l.env)
	n.podID, n.pod = l.podID, l.pod
	n.ctr = testenv.ContainerConfig("neighbour", l.env.Images["busybox"], "sleep", "1000")
	n.ctr.Mounts = l.ctr.Mounts
	if err := n.create(ctx); status.Code(err) == codes.AlreadyExists {
		return nil // and runs
	} else if err != nil {
		return err
	}
	return n.start(ctx)
}

// joined looks that the container has the neighbour's mount over its own one; twice, if
// a daemon died when it had put it there.
func (l *life) joined(ctx context.Context) error {
	out, err := l.env.Client.Exec(ctx, l.ctrID, "/bin/grep", " /vol ", "/proc/self/mountinfo")
	if err == nil && strings.Count(out, "\n") < 2 {
		err = fmt.Errorf("the mounts of the volume are\n%s", out)
	}
	return err
}

func (l *life) exec(ctx context.Context) error {
	out, err := l.env.Client.Exec(ctx, l.ctrID, "/bin/echo", "in here")
	if err == nil && out != "in here\n" {
		err = fmt.Errorf("exec printed %q", out)
	}
	return err
}

func (l *life) stopContainer(ctx context.Context) error {
	_, err := l.runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: l.ctrID, Timeout: 30})
	if err != nil {
		return err
	}
	return l.ended(ctx, 3)
}

func (l *life) ended(ctx context.Context, code int32) error {
	st, err := l.env.Client.WaitContainer(ctx, l.ctrID, runtimeapi.ContainerState_CONTAINER_EXITED)
	if err == nil && st.ExitCode != code {
		err = fmt.Errorf("the container ended with %d (%s: %s), not %d", st.ExitCode, st.Reason, st.Message, code)
	}
	return err
}

func (l *life) removeContainer(ctx context.Context) error {
	_, err := l.runtime().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: l.ctrID})
	return err
}

func (l *life) stop(ctx context.Context) error {
	_, err := l.runtime().StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: l.podID})
	return err
}

func (l *life) remove(ctx context.Context) error {
	_, err := l.runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: l.podID})
	return err
}

func (l *life) killSandbox(context.Context) error {
	rec, err := readPodRecord(l.env, l.podID)
	if err != nil {
		return err
	}
	if err := syscall.Kill(rec.Process.PID, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// dead waits until both know it.
func (l *life) dead(ctx context.Context) error {
	if err := l.ended(ctx, 137); err != nil {
		return err
	}
	for {
		r, err := l.runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: l.podID})
		if err != nil || r.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			return err
		}
	}
}

func (l *life) pull(ctx context.Context) error {
	_, err := l.env.Client.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: l.env.Images["web"]}})
	return err
}

func (l *life) image(ctx context.Context) error {
	r, err := l.env.Client.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: l.env.Images["web"]}})
	if err == nil && r.Image == nil {
		err = errors.New("the image that was pulled is not there")
	}
	return err
}

func (l *life) removeImage(ctx context.Context) error {
	_, err := l.env.Client.Image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: l.env.Images["web"]}})
	return err
}

// tell writes where a life has got to.
func (l *life) String() string {
	return fmt.Sprintf("pod %.12s, container %.12s, daemon log %s", l.podID, l.ctrID, os.ExpandEnv(l.env.LogFile()))
}

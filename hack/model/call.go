package model

import (
	"context"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// unit is that of limits, in bytes.
const unit = 256 << 20

// places are the ids as they were before a step.
type places struct {
	pods [pods]string
	ctrs [pods][containers]string
}

func (r *run) known() places {
	r.ids.mu.Lock()
	defer r.ids.mu.Unlock()
	return places{r.ids.pods, r.ids.ctrs}
}

// call makes a request.
func (r *run) call(ctx context.Context, o Op, known places) (proto.Message, error) {
	id := known.pods[o.Pod]
	switch o.Kind {
	case RunPod:
		resp, err := r.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: r.Pod(o.Pod)})
		if err == nil {
			r.ids.mu.Lock()
			r.ids.pods[o.Pod] = resp.PodSandboxId
			r.ids.mu.Unlock()
			r.events.expect(resp.PodSandboxId, resp.PodSandboxId)
		}
		return resp, err
	case StopPod:
		return r.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	case RemovePod:
		return r.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	case ResizePod:
		return r.Runtime.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{
			PodSandboxId: id, Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: int64(4+o.Arg) * unit},
		})
	case Forward:
		return r.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80}})
	case Die:
		if id == noID {
			return nil, nil
		}
		return nil, r.KillSandbox(ctx, id)
	case Pull:
		return r.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: r.Images[o.Arg]}})
	case RemoveImg:
		return r.Image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: r.Images[o.Arg]}})
	}
	return r.callContainer(ctx, o, known)
}

// callContainer makes a request that concerns one container.
func (r *run) callContainer(ctx context.Context, o Op, known places) (proto.Message, error) {
	id := known.ctrs[o.Pod][o.Ctr]
	switch o.Kind {
	case Create:
		resp, err := r.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: known.pods[o.Pod], Config: r.container(o), SandboxConfig: r.Pod(o.Pod),
		})
		if err == nil {
			r.ids.mu.Lock()
			r.ids.ctrs[o.Pod][o.Ctr] = resp.ContainerId
			r.ids.mu.Unlock()
			r.events.expect(resp.ContainerId, known.pods[o.Pod])
		}
		return resp, err
	case Start:
		return r.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	case Stop:
		return r.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(o.Arg)})
	case Remove:
		return r.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	case Resize:
		return r.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: int64(o.Arg) * unit},
		})
	case Exec:
		return r.exec(ctx, id, []string{"exit 0", "exit 3", "exit 255"}[o.Arg], []int32{0, 3, 255}[o.Arg])
	case Quit:
		// It may go with its container, whatever it answers then.
		return r.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: shell(enginetest.Quit), Timeout: 60})
	case OpenExec:
		return r.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: shell("exit 0"), Stdout: true})
	case OpenAttach:
		return r.Runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdout: true})
	case ReopenLog:
		return r.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	}
	return nil, nil
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

// exec runs a command; another exit code than wanted is DataLoss, which no
// runtime answers.
func (r *run) exec(ctx context.Context, id, script string, want int32) (proto.Message, error) {
	resp, err := r.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: shell(script), Timeout: 60})
	if err == nil && resp.ExitCode != want {
		err = status.Errorf(codes.DataLoss, "exit code %d, want %d", resp.ExitCode, want)
	}
	return resp, err
}

func (r *run) ready1(ctx context.Context, id string) error {
	_, err := r.exec(ctx, id, enginetest.AwaitReady, 0)
	return err
}

// container is the config of a container of a place.
func (r *run) container(o Op) *runtimeapi.ContainerConfig {
	name := string(rune('a' + o.Ctr))
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: r.Images[imageOf(o)]},
		Command:  shell(scripts[o.Arg]),
		LogPath:  name + ".log",
		Labels:   map[string]string{"place": name, "script": strconv.Itoa(o.Arg)},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			RunAsUser: &runtimeapi.Int64Value{}, // whatever the image says
			// Otherwise the first process that Quit signals is the pod's.
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

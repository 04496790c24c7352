package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/network"
)

// runtimeName and apiVersion are what Version answers.
const (
	runtimeName = "cri-sandbox"
	apiVersion  = "v1"
	// kubeletAPIVersion is the version of the kubelet's own runtime API, fixed
	// since CRI exists.
	kubeletAPIVersion = "0.1.0"
)

type runtimeService struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	opts    Options
	streams *streamServer
}

func (s *runtimeService) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version: kubeletAPIVersion, RuntimeName: runtimeName, RuntimeVersion: s.opts.Version, RuntimeApiVersion: apiVersion,
	}, nil
}

func (s *runtimeService) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	net := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if err := s.opts.Network.Ready(ctx); err != nil {
		net.Status, net.Reason, net.Message = false, "NetworkPluginNotReady", err.Error()
	}
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, net,
		}},
		// mount_options would claim nodev, too, which the Sentry does not apply.
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}
	for _, name := range s.opts.Pods.Handlers() {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: name, Features: s.opts.Features[name],
		})
	}
	if req.GetVerbose() {
		resp.Info = map[string]string{"network": networkInfo(s.opts.Network)}
		if pulls, err := json.Marshal(s.opts.Images.Running()); err == nil {
			resp.Info["pulls"] = string(pulls)
		}
		maps.Copy(resp.Info, s.opts.Info)
	}
	return resp, nil
}

// networkInfo is the network configuration in use, or why there is none.
func networkInfo(n *network.CNI) string {
	var info struct {
		File   string          `json:"file,omitempty"`
		Config json.RawMessage `json:"config,omitempty"`
		Error  string          `json:"error,omitempty"`
	}
	var err error
	if info.File, info.Config, err = n.Config(); err != nil {
		info.Error = err.Error()
	}
	data, err := json.Marshal(info)
	if err != nil {
		return "{}"
	}
	return string(data)
}

func (s *runtimeService) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if s.opts.Systemd {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

func (s *runtimeService) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	id, err := s.opts.Pods.RunPodSandbox(ctx, req.GetConfig(), req.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (s *runtimeService) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	if err := s.opts.Pods.StopPodSandbox(ctx, req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (s *runtimeService) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	if err := s.opts.Pods.RemovePodSandbox(ctx, req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (s *runtimeService) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	snap, err := s.opts.Pods.State.PodStatus(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	// Without a time the kubelet asks for each container, as it does without the
	// gate EventedPLEG. With one it believes the statuses here; and v1.37 then takes
	// no container for one of the present sandbox, and runs the init containers of
	// a pod that runs again.
	resp := &runtimeapi.PodSandboxStatusResponse{Status: snap.Pod, ContainersStatuses: snap.Containers}
	if req.GetVerbose() {
		resp.Info, err = verbose(s.opts.Pods.PodInfo(req.GetPodSandboxId()))
	}
	return resp, err
}

func (s *runtimeService) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: s.opts.Pods.State.ListPods(req.GetFilter())}, nil
}

func (s *runtimeService) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	id, err := s.opts.Pods.CreateContainer(ctx, req.GetPodSandboxId(), req.GetConfig())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (s *runtimeService) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	if err := s.opts.Pods.StartContainer(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

func (s *runtimeService) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	grace, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	if err := s.opts.Pods.StopContainer(ctx, req.GetContainerId(), grace); err != nil {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

func (s *runtimeService) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	if err := s.opts.Pods.RemoveContainer(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (s *runtimeService) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.opts.Pods.State.ListContainers(req.GetFilter())}, nil
}

func (s *runtimeService) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	st, err := s.opts.Pods.State.ContainerStatus(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: st}
	if req.GetVerbose() {
		resp.Info, err = verbose(s.opts.Pods.ContainerInfo(req.GetContainerId()))
	}
	return resp, err
}

func (s *runtimeService) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	timeout, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	res, err := s.opts.Pods.Streams.ExecSync(ctx, req.GetContainerId(), req.GetCmd(), timeout)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ExecSyncResponse{Stdout: res.Stdout, Stderr: res.Stderr, ExitCode: int32(res.ExitCode)}, nil
}

func (s *runtimeService) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if err := s.opts.Pods.Streams.CheckExec(req.GetContainerId(), req.GetCmd()); err != nil {
		return nil, err
	}
	url, err := s.streams.exec(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ExecResponse{Url: url}, nil
}

func (s *runtimeService) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if err := s.opts.Pods.Streams.CheckAttach(req.GetContainerId(), req.GetStdin(), req.GetTty()); err != nil {
		return nil, err
	}
	url, err := s.streams.attach(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.AttachResponse{Url: url}, nil
}

func (s *runtimeService) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if err := s.opts.Pods.Streams.CheckForward(req.GetPodSandboxId(), req.GetPort()); err != nil {
		return nil, err
	}
	url, err := s.streams.portForward(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PortForwardResponse{Url: url}, nil
}

func (s *runtimeService) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	if err := s.opts.Pods.Streams.ReopenContainerLog(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

func (s *runtimeService) ContainerStats(ctx context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	stats, err := s.opts.Pods.Stats.ContainerStats(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatsResponse{Stats: stats}, nil
}

func (s *runtimeService) ListContainerStats(ctx context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.opts.Pods.Stats.ListContainerStats(ctx, req.GetFilter())}, nil
}

func (s *runtimeService) PodSandboxStats(ctx context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	stats, err := s.opts.Pods.Stats.PodStats(ctx, req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: stats}, nil
}

func (s *runtimeService) ListPodSandboxStats(ctx context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.opts.Pods.Stats.ListPodStats(ctx, req.GetFilter())}, nil
}

func (s *runtimeService) GetContainerEvents(_ *runtimeapi.GetEventsRequest, ss grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	// Otherwise the header comes with the first event; sent at once, it tells the
	// client that the subscription stands.
	subscribed := func() error { return ss.SendHeader(nil) }
	return s.opts.Pods.State.Events(ss.Context(), subscribed, ss.Send)
}

// seconds converts a count of seconds of the request.
func seconds(name string, n int64) (time.Duration, error) {
	const most = int64(24 * 365 * time.Hour / time.Second)
	if n < 0 {
		return 0, fmt.Errorf("%s is negative (%d s): %w", name, n, errdefs.ErrInvalidArgument)
	}
	return time.Duration(min(n, most)) * time.Second, nil
}

// verbose is the info map of a verbose answer: one JSON document under "info",
// where crictl looks for it.
func verbose(info any, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode info: %w", err)
	}
	return map[string]string{"info": string(data)}, nil
}

package model

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// compareViews asks for the same state in the other ways that there are. The
// runtime is at rest, so all of them must agree.
func (r *run) compareViews(ctx context.Context, o observation) error {
	for _, view := range []func(context.Context, observation) error{
		r.viewFilteredPods, r.viewFilteredContainers, r.viewStreams, r.viewStats, r.viewImages, r.viewPodStatus,
	} {
		if err := view(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// sameIDs compares ids in any order.
func sameIDs(what string, got, want []string, err error) error {
	if err != nil {
		return differ("%s: %v", what, err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return differ("%s lists %q, want %q", what, got, want)
	}
	return nil
}

// podIDs are the pods' ids that fit.
func (o observation) podIDs(fits func(i int, p podState) bool) []string {
	out := []string{}
	for i, p := range o.state.Pods {
		if p.Phase != absent && fits(i, p) {
			out = append(out, o.ids.pods[i])
		}
	}
	return out
}

func (o observation) ctrIDs(fits func(i, j int, c ctrState) bool) []string {
	out := []string{}
	for i, p := range o.state.Pods {
		for j, c := range p.Ctrs {
			if c.Phase != absent && fits(i, j, c) {
				out = append(out, o.ids.ctrs[i][j])
			}
		}
	}
	return out
}

func (r *run) viewFilteredPods(ctx context.Context, o observation) error {
	for i := range pods {
		for what, f := range map[string]*runtimeapi.PodSandboxFilter{
			"by id":    {Id: o.ids.pods[i]},
			"by label": {LabelSelector: r.Pod(i).Labels},
		} {
			if f.Id == "" && what == "by id" {
				continue
			}
			err := r.filteredPods(ctx, "pods "+what, f, o.podIDs(func(n int, _ podState) bool { return n == i }))
			if err != nil {
				return err
			}
		}
	}
	isReady := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	return r.filteredPods(ctx, "ready pods", &runtimeapi.PodSandboxFilter{State: isReady},
		o.podIDs(func(_ int, p podState) bool { return p.Phase == ready }))
}

func (r *run) filteredPods(ctx context.Context, what string, f *runtimeapi.PodSandboxFilter, want []string) error {
	resp, err := r.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: f})
	got := []string{}
	for _, p := range resp.GetItems() {
		got = append(got, p.Id)
	}
	return sameIDs(what, got, want, err)
}

func (r *run) viewFilteredContainers(ctx context.Context, o observation) error {
	exitedState := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}
	for what, c := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		fits   func(i, j int, c ctrState) bool
	}{
		"ended containers":      {&runtimeapi.ContainerFilter{State: exitedState}, func(_, _ int, c ctrState) bool { return c.Phase == exited }},
		"containers by label":   {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"place": "b"}}, func(_, j int, _ ctrState) bool { return j == 1 }},
		"containers of no pod":  {&runtimeapi.ContainerFilter{PodSandboxId: noID}, func(int, int, ctrState) bool { return false }},
		"containers of one pod": {&runtimeapi.ContainerFilter{PodSandboxId: o.ids.pods[0]}, func(i, _ int, _ ctrState) bool { return i == 0 }},
	} {
		if what == "containers of one pod" && o.ids.pods[0] == "" {
			continue
		}
		resp, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: c.filter})
		got := []string{}
		for _, item := range resp.GetContainers() {
			got = append(got, item.Id)
		}
		if err := sameIDs(what, got, o.ctrIDs(c.fits), err); err != nil {
			return err
		}
	}
	return nil
}

// collect reads a stream to its end.
func collect[R any](stream grpc.ServerStreamingClient[R], err error, each func(*R)) error {
	for err == nil {
		var m *R
		if m, err = stream.Recv(); err == nil {
			each(m)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (r *run) viewStreams(ctx context.Context, o observation) error {
	got := []string{}
	stream, err := r.Runtime.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
	err = collect(stream, err, func(m *runtimeapi.StreamPodSandboxesResponse) {
		for _, p := range m.PodSandboxes {
			got = append(got, p.Id)
		}
	})
	if err := sameIDs("the stream of pods", got, o.podIDs(func(int, podState) bool { return true }), err); err != nil {
		return err
	}
	got = []string{}
	cs, err := r.Runtime.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
	err = collect(cs, err, func(m *runtimeapi.StreamContainersResponse) {
		for _, c := range m.Containers {
			got = append(got, c.Id)
		}
	})
	return sameIDs("the stream of containers", got, o.ctrIDs(func(int, int, ctrState) bool { return true }), err)
}

func (r *run) viewStats(ctx context.Context, o observation) error {
	resp, err := r.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	got := []string{}
	for _, s := range resp.GetStats() {
		got = append(got, s.GetAttributes().GetId())
	}
	if err := sameIDs("the use of containers", got, o.ctrIDs(func(_, _ int, c ctrState) bool { return c.Phase == running }), err); err != nil {
		return err
	}
	pods, err := r.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	got = []string{}
	for _, s := range pods.GetStats() {
		got = append(got, s.GetAttributes().GetId())
	}
	return sameIDs("the use of pods", got, o.podIDs(func(_ int, p podState) bool { return p.Phase == ready }), err)
}

func (r *run) viewImages(ctx context.Context, o observation) error {
	for i, present := range o.state.Images {
		resp, err := r.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: r.Images[i]}})
		if err != nil || (resp.Image != nil) != present {
			return differ("status of image %d: %v, %v; it is listed: %v", i, resp, err, present)
		}
	}
	return nil
}

func (r *run) viewPodStatus(ctx context.Context, o observation) error {
	for i, p := range o.state.Pods {
		if p.Phase == absent {
			continue
		}
		resp, err := r.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: o.ids.pods[i], Verbose: true})
		if err != nil {
			return differ("status of pod %d: %v", i, err)
		}
		if isReady := resp.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY; isReady != (p.Phase == ready) {
			return differ("pod %d is listed as %s and its status says %s", i, p.Phase, resp.Status.State)
		}
		got := []string{}
		for _, c := range resp.ContainersStatuses {
			got = append(got, c.Id)
		}
		if err := sameIDs("the status of a pod", got, o.ctrIDs(func(n, _ int, _ ctrState) bool { return n == i }), nil); err != nil {
			return err
		}
	}
	return nil
}

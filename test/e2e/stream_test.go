package e2e

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// collect reads a stream to its end and returns the names of its items. Each has
// to come once, and no message may be empty.
func collect[R, I any](k kit, open func() (grpc.ServerStreamingClient[R], error), items func(*R) []I, name func(I) string) []string {
	k.Helper()
	s, err := open()
	k.must(err)
	seen := map[string]bool{}
	names := []string{}
	for {
		msg, err := s.Recv()
		if errors.Is(err, io.EOF) {
			sort.Strings(names)
			return names
		}
		k.must(err)
		if len(items(msg)) == 0 {
			k.Error("a message without an item")
		}
		for _, i := range items(msg) {
			if seen[name(i)] {
				k.Errorf("%s came twice", name(i))
			}
			seen[name(i)] = true
			names = append(names, name(i))
		}
	}
}

func sorted[I any](items []I, name func(I) string) []string {
	names := []string{}
	for _, i := range items {
		names = append(names, name(i))
	}
	sort.Strings(names)
	return names
}

func TestStreamRPCsAnswerWhatListsDo(t *testing.T) {
	k := newKit(t)
	var pods []string
	for i := range 2 {
		id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
			p.Metadata.Name = fmt.Sprintf("streams-%d", i)
			p.Labels["set"] = "streams"
		})
		pods = append(pods, id)
		for _, name := range []string{"a", "b"} {
			k.start(id, pod, k.shell(name, "exec sleep 600", func(c *runtimeapi.ContainerConfig) { c.Labels["set"] = "streams" }))
		}
	}
	rt, labels := k.runtime(), map[string]string{"set": "streams"}
	same := func(what string, got, want []string, n int) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) || n >= 0 && len(got) != n {
			t.Errorf("%s: the stream has %v, the list %v", what, got, want)
		}
	}

	podFilter := &runtimeapi.PodSandboxFilter{LabelSelector: labels}
	plist, err := rt.ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{Filter: podFilter})
	k.must(err)
	same("pods", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxesResponse], error) {
		return rt.StreamPodSandboxes(k.ctx, &runtimeapi.StreamPodSandboxesRequest{Filter: podFilter})
	}, (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes, encoded[*runtimeapi.PodSandbox]),
		sorted(plist.Items, encoded[*runtimeapi.PodSandbox]), 2)

	ctrFilter := &runtimeapi.ContainerFilter{LabelSelector: labels}
	clist, err := rt.ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: ctrFilter})
	k.must(err)
	same("containers", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamContainersResponse], error) {
		return rt.StreamContainers(k.ctx, &runtimeapi.StreamContainersRequest{Filter: ctrFilter})
	}, (*runtimeapi.StreamContainersResponse).GetContainers, encoded[*runtimeapi.Container]),
		sorted(clist.Containers, encoded[*runtimeapi.Container]), 4)

	statsFilter := &runtimeapi.ContainerStatsFilter{PodSandboxId: pods[0]}
	cstats, err := rt.ListContainerStats(k.ctx, &runtimeapi.ListContainerStatsRequest{Filter: statsFilter})
	k.must(err)
	ctrID := func(s *runtimeapi.ContainerStats) string { return s.GetAttributes().GetId() }
	same("container stats", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamContainerStatsResponse], error) {
		return rt.StreamContainerStats(k.ctx, &runtimeapi.StreamContainerStatsRequest{Filter: statsFilter})
	}, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats, ctrID), sorted(cstats.Stats, ctrID), 2)

	podStatsFilter := &runtimeapi.PodSandboxStatsFilter{LabelSelector: labels}
	pstats, err := rt.ListPodSandboxStats(k.ctx, &runtimeapi.ListPodSandboxStatsRequest{Filter: podStatsFilter})
	k.must(err)
	podID := func(s *runtimeapi.PodSandboxStats) string { return s.GetAttributes().GetId() }
	same("pod stats", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxStatsResponse], error) {
		return rt.StreamPodSandboxStats(k.ctx, &runtimeapi.StreamPodSandboxStatsRequest{Filter: podStatsFilter})
	}, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats, podID), sorted(pstats.Stats, podID), 2)

	ilist, err := k.env.Client.Image.ListImages(k.ctx, &runtimeapi.ListImagesRequest{})
	k.must(err)
	same("images", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamImagesResponse], error) {
		return k.env.Client.Image.StreamImages(k.ctx, &runtimeapi.StreamImagesRequest{})
	}, (*runtimeapi.StreamImagesResponse).GetImages, (*runtimeapi.Image).GetId), sorted(ilist.Images, (*runtimeapi.Image).GetId), -1)
}

func encoded[M proto.Message](m M) string {
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return fmt.Sprintf("%x", b)
}

// TestStreamRPCsOfWhatIsNotThere: a filter that fits nothing is an empty stream, one
// that is malformed an error.
func TestStreamRPCsOfWhatIsNotThere(t *testing.T) {
	k := newKit(t)
	rt := k.runtime()
	const none = "ffffffffffff"
	empty := func(what string, names []string) {
		t.Helper()
		if len(names) > 0 {
			t.Errorf("%s: %v", what, names)
		}
	}
	empty("pods", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxesResponse], error) {
		return rt.StreamPodSandboxes(k.ctx, &runtimeapi.StreamPodSandboxesRequest{Filter: &runtimeapi.PodSandboxFilter{Id: none}})
	}, (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes, (*runtimeapi.PodSandbox).GetId))
	empty("containers", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamContainersResponse], error) {
		return rt.StreamContainers(k.ctx, &runtimeapi.StreamContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: none}})
	}, (*runtimeapi.StreamContainersResponse).GetContainers, (*runtimeapi.Container).GetId))
	empty("container stats", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamContainerStatsResponse], error) {
		return rt.StreamContainerStats(k.ctx, &runtimeapi.StreamContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{Id: none}})
	}, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats, (*runtimeapi.ContainerStats).String))
	empty("pod stats", collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxStatsResponse], error) {
		return rt.StreamPodSandboxStats(k.ctx, &runtimeapi.StreamPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: none}})
	}, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats, (*runtimeapi.PodSandboxStats).String))

	s, err := k.env.Client.Image.StreamImages(k.ctx, &runtimeapi.StreamImagesRequest{
		Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: "UPPER/Case@"}},
	})
	k.must(err)
	_, err = s.Recv()
	k.refused(err, codes.InvalidArgument, "UPPER/Case@")
}

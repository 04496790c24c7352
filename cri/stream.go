package cri

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The Stream calls answer what the List calls do, in parts: each item in exactly
// one message, no message without an item, and the end of the stream after the
// last. The list is taken once, before the first message, so that it is of one
// moment however slowly the caller reads.

// maxBatchBytes bounds the items of one message, in their encoded size. It is far
// below the limit of a message, and an item is never split: one that is larger
// travels alone.
const maxBatchBytes = 1 << 20

// sendBatches sends items in order, as many in a message as fit.
func sendBatches[T proto.Message](items []T, send func([]T) error) error {
	for len(items) > 0 {
		n, size := 1, proto.Size(items[0])
		for n < len(items) {
			if size += proto.Size(items[n]); size > maxBatchBytes {
				break
			}
			n++
		}
		if err := send(items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

func (s *runtimeService) StreamPodSandboxes(req *runtimeapi.StreamPodSandboxesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	return sendBatches(s.opts.Pods.State.ListPods(req.GetFilter()), func(batch []*runtimeapi.PodSandbox) error {
		return out.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: batch})
	})
}

func (s *runtimeService) StreamContainers(req *runtimeapi.StreamContainersRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	return sendBatches(s.opts.Pods.State.ListContainers(req.GetFilter()), func(batch []*runtimeapi.Container) error {
		return out.Send(&runtimeapi.StreamContainersResponse{Containers: batch})
	})
}

func (s *runtimeService) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	return sendBatches(s.opts.Pods.Stats.ListContainerStats(out.Context(), req.GetFilter()), func(batch []*runtimeapi.ContainerStats) error {
		return out.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: batch})
	})
}

func (s *runtimeService) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	return sendBatches(s.opts.Pods.Stats.ListPodStats(out.Context(), req.GetFilter()), func(batch []*runtimeapi.PodSandboxStats) error {
		return out.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: batch})
	})
}

func (s *imageService) StreamImages(req *runtimeapi.StreamImagesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamImagesResponse]) error {
	images, err := s.opts.Images.List(out.Context(), req.GetFilter().GetImage().GetImage())
	if err != nil {
		return err
	}
	items := make([]*runtimeapi.Image, 0, len(images))
	for _, img := range images {
		items = append(items, toImage(img))
	}
	return sendBatches(items, func(batch []*runtimeapi.Image) error {
		return out.Send(&runtimeapi.StreamImagesResponse{Images: batch})
	})
}

package testenv

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// recorder is a runtime that only counts: there is nothing real about it, and
// only the client's memory is tested with it.
type recorder struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	mu      sync.Mutex
	removed []string // +checklocks:mu
}

func (r *recorder) RunPodSandbox(_ context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	if req.Config.Metadata.Name == "bad" {
		return nil, status.Error(codes.InvalidArgument, "bad")
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: "id-" + req.Config.Metadata.Name}, nil
}

func (r *recorder) StopPodSandbox(_ context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	if req.PodSandboxId == "id-gone" {
		return nil, status.Error(codes.NotFound, "gone")
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (r *recorder) RemovePodSandbox(_ context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = append(r.removed, req.PodSandboxId)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func TestRemoveAllRemovesWhatIsLeft(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	must(t, err)
	srv, rec := grpc.NewServer(), &recorder{}
	runtimeapi.RegisterRuntimeServiceServer(srv, rec)
	go srv.Serve(l)
	defer srv.Stop()
	c, err := Dial("unix://" + sock)
	must(t, err)
	defer c.Close()

	ctx := context.Background()
	for _, name := range []string{"a", "b", "bad"} {
		c.RunPod(ctx, &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name}})
	}
	c.Note("id-crictl")
	c.Note("id-gone")
	must(t, c.RemovePod(ctx, "id-a"))
	must(t, c.RemoveAll(ctx))
	must(t, c.RemoveAll(ctx)) // all gone: nothing to do
	if got := strings.Join(rec.removed, " "); got != "id-a id-b id-crictl" && got != "id-a id-crictl id-b" {
		t.Errorf("removed %s", got)
	}
	if got := strings.Join(c.IDs(), " "); got != "id-a id-b id-crictl id-gone" {
		t.Errorf("ids %s", got)
	}
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	must(t, os.WriteFile(path, []byte(
		"2026-01-02T03:04:05.6Z stdout F one\n"+
			"2026-01-02T03:04:05.6Z stdout P tw\n"+
			"2026-01-02T03:04:05.6Z stderr F o \n"+
			"2026-01-02T03:04:05.6Z stdout F \n"+
			"2026-01-02T03:04:05.6Z stdout F still being wri"), 0o644))
	got, err := ReadLog(path)
	must(t, err)
	if got != "one\ntwo \n\n" {
		t.Errorf("got %q", got)
	}
	must(t, os.WriteFile(path, []byte("torn\n"), 0o644))
	if _, err := ReadLog(path); err == nil {
		t.Error("a torn record passes")
	}
}

package fakenode

import (
	"context"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// TestNodeRunsAndIsLeftEmpty: a life of a pod over a restart, what Left sees of
// it, and nothing after it.
func TestNodeRunsAndIsLeftEmpty(t *testing.T) {
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = n.Client.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: n.Images[0]}})
	must(err)
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "a", Namespace: "b", Uid: "c"},
		LogDirectory: n.LogDir(), Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: n.CgroupParent},
	}
	id, err := n.Client.RunPod(ctx, pod)
	must(err)
	c := testenv.ContainerConfig("c", n.Images[0], "/bin/sh", "-c", "echo hello; "+enginetest.Polite)
	cid, err := n.Client.RunContainer(ctx, id, pod, c)
	must(err)
	must(n.Kill())
	must(n.Start(ctx))
	if out, err := n.Client.Exec(ctx, cid, "/bin/sh", "-c", "echo out; exit 0"); err != nil || out != "out\n" {
		t.Errorf("exec after a restart: %q, %v", out, err)
	}
	if text, err := testenv.WaitLog(ctx, testenv.LogPath(pod, c), "hello\n"); err != nil {
		t.Errorf("log %q: %v", text, err)
	}
	if left, err := n.look(); err != nil || len(left) < 5 {
		t.Errorf("of a running pod only this is seen: %v, %v", left, err)
	}
	must(n.RemoveAll(ctx))
	if left, err := n.Left(ctx); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

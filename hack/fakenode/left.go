package fakenode

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// RemoveAll removes all pods, whoever made them.
func (n *Node) RemoveAll(ctx context.Context) error {
	list, err := n.Client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range list.Items {
		_, err := n.Client.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Id})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Left says what is there of pods, by kind and place. After the last pod was
// removed it is nothing; what ends a moment later is waited for.
func (n *Node) Left(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		left, err := n.look()
		if err != nil || len(left) == 0 {
			return left, err
		}
		select {
		case <-ctx.Done():
			return left, nil
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (n *Node) look() ([]string, error) {
	var left []string
	for _, id := range n.Engine.Sandboxes() {
		left = append(left, "sandbox "+id)
	}
	for kind, dir := range map[string]string{
		"record": "root/pods", "state": "state/pods", "namespace": "state/netns", "root file system": "root/images/rootfs",
	} {
		entries, err := os.ReadDir(filepath.Join(n.Dir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			left = append(left, kind+" "+e.Name())
		}
	}
	mounts, err := testenv.MountsBelow(n.Dir)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		// An image keeps one read-only view of its layers.
		if !strings.HasPrefix(m, filepath.Join(n.Dir, "root", "images")) {
			left = append(left, "mount "+m)
		}
	}
	cgroups, err := testenv.Cgroups(n.CgroupParent)
	for _, g := range cgroups {
		if filepath.Base(g) != strings.TrimPrefix(n.CgroupParent, "/") {
			left = append(left, "cgroup "+g)
		}
	}
	return left, err
}

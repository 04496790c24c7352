package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// imageGC lets the kubelet believe that the disk is nearly full. It removes what no
// container uses; those in use, and the pinned one, have to stay. (Pods it cannot
// evict: static ones are critical.)
func (w *walk) imageGC(ctx context.Context) (string, error) {
	unused := w.env.Registry + "/test/unused:latest"
	image, err := testimages.Image(v1.Config{}, []testimages.File{{Path: "file", Mode: 0o644, Content: []byte("of no use\n")}})
	if err == nil {
		err = testimages.PushImage(ctx, unused, image)
	}
	if err != nil {
		return "", err
	}
	for _, ref := range []string{unused, w.env.Images["nonroot"]} {
		if _, err := w.env.Crictl(ctx, "pull", ref); err != nil {
			return "", err
		}
	}
	if err := w.kubelet.stop(ctx); err != nil {
		return "", err
	}
	full := map[string]any{"evictionHard": map[string]string{"imagefs.available": "99%"}, "imageMinimumGCAge": "1s"}
	if err := w.kubelet.start(ctx, full); err != nil {
		return "", err
	}
	var names string
	err = poll(ctx, func() (err error) {
		if names, err = w.imageNames(ctx); err == nil && strings.Contains(names, unused) {
			err = errors.New("the unused image is there")
		}
		return err
	})
	if err != nil {
		return names, err
	}
	return names, wants(names, w.env.Images["busybox"], w.env.Images["web"], w.env.Images["nonroot"])
}

func (w *walk) imageNames(ctx context.Context) (string, error) {
	resp, err := w.env.Client.Image.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return "", fmt.Errorf("list images: %w", err)
	}
	var names strings.Builder
	for _, image := range resp.Images {
		fmt.Fprintln(&names, strings.Join(image.RepoTags, " "))
	}
	return names.String(), nil
}

// removeAll ends the pods by way of the kubelet: its directory of manifests becomes
// empty. It removes sandboxes a minute later at the latest.
func (w *walk) removeAll(ctx context.Context) (string, error) {
	if err := w.note(ctx); err != nil { // for the search for their cgroups
		return "", err
	}
	entries, err := os.ReadDir(w.kubelet.manifests())
	if err != nil {
		return "", err
	}
	for _, en := range entries {
		if err := os.Remove(filepath.Join(w.kubelet.manifests(), en.Name())); err != nil {
			return "", err
		}
	}
	err = poll(ctx, func() error {
		pods, err := w.kubelet.pods(ctx)
		if err != nil {
			return err
		}
		resp, err := w.env.Client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		directories, err := os.ReadDir(filepath.Join(w.kubelet.root(), "pods"))
		if err != nil {
			return err
		}
		if len(pods)+len(resp.Items)+len(directories) > 0 {
			return fmt.Errorf("%d pods, %d sandboxes, %d directories of pods are left", len(pods), len(resp.Items), len(directories))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(w.kubelet.host(), "stop"))
	if err == nil {
		err = wants(string(b), "stopping")
	}
	return "", err
}

// audit stops the kubelet, takes away the two things that one leaves on its node,
// and compares with the beginning.
func (w *walk) audit(ctx context.Context) (string, error) {
	if err := w.kubelet.stop(ctx); err != nil {
		return "", err
	}
	if own := nodesOwn(); own != w.own {
		return "", fmt.Errorf("the node's own has changed from\n%sto\n%s", w.own, own)
	}
	if err := unix.Unmount(w.kubelet.root(), 0); err != nil {
		return "", fmt.Errorf("unmount kubelet's root: %w", err)
	}
	if err := w.removeCgroups(); err != nil {
		return "", err
	}
	if _, err := w.env.Crictl(ctx, "rmi", "-a"); err != nil {
		return "", err
	}
	if err := w.env.Audit(ctx); err != nil {
		return "", err
	}
	return "no process, mount, netns, link, address, rule, cgroup, pipe, file or layer of it", nil
}

// removeCgroups removes those that a kubelet leaves on its node, which are the ones of
// its classes of pods. One of a pod among them is an error: the kubelet removes these
// itself, and can when nothing is in them.
func (w *walk) removeCgroups() error {
	o, err := w.env.Observe()
	if err != nil {
		return err
	}
	for _, path := range o["cgroup"] {
		if name := filepath.Base(path); strings.Contains(name, "pod") && !strings.HasPrefix(name, "kubepods") {
			return fmt.Errorf("cgroup of a pod is left: %s", path)
		}
	}
	return w.env.RemoveCgroups()
}

func (w *walk) end(context.Context) (string, error) {
	env := w.env
	w.env = nil
	return env.End()
}

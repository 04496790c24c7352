package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// pullVolume pulls an image with files to mount, under a name of the test's own,
// and removes it after the test.
func pullVolume(k kit) string {
	k.Helper()
	img, err := testimages.Image(v1.Config{}, []testimages.File{
		{Path: "data/hello", Mode: 0o644, Content: []byte("hello of " + k.Name() + "\n")},
		{Path: "data/mine", Mode: 0o600, UID: 1000, GID: 1000, Content: []byte("app's\n")},
		{Path: "data/run", Mode: 0o755, Content: []byte("#!/bin/sh\necho ran\n")},
		{Path: "inside", Link: "data"}, {Path: "absolute", Link: "/data"},
		{Path: "data/outside", Link: "../../../../../etc"}, {Path: "circle", Link: "circle"},
	})
	k.must(err)
	ref := k.env.Registry + "/volume/" + strings.ToLower(k.Name()) + ":1"
	k.must(testimages.PushImage(k.ctx, ref, img))
	_, err = k.env.Client.Image.PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	k.Cleanup(func() { removeImage(k, ref) })
	return ref
}

func removeImage(k kit, ref string) {
	k.Helper()
	_, err := k.env.Client.Image.RemoveImage(k.ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
}

func imageAt(path, ref, sub string) *runtimeapi.Mount {
	return &runtimeapi.Mount{ContainerPath: path, Image: &runtimeapi.ImageSpec{Image: ref}, ImageSubPath: sub, Readonly: true}
}

func withMounts(m ...*runtimeapi.Mount) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Mounts = m }
}

func TestImageVolume(t *testing.T) {
	k := newKit(t)
	ref := pullVolume(k)
	for name, change := range map[string]func(*runtimeapi.PodSandboxConfig){"host-users": func(*runtimeapi.PodSandboxConfig) {}, "own-users": ownUsers} {
		t.Run(name, func(t *testing.T) {
			k := k
			k.T = t
			id, pod := k.pod(change)
			c := k.shell("c", `cat /whole/data/hello /sub/hello /link/hello /file; stat -c '%n %u:%g' /sub/mine
				touch /whole/x 2>&1; /sub/run; ls /whole`,
				withMounts(imageAt("/whole", ref, ""), imageAt("/sub", ref, "data"), imageAt("/link", ref, "inside"), imageAt("/file", ref, "data/hello")))
			out := k.run(id, pod, c)
			if n := strings.Count(out, "hello of TestImageVolume"); n != 4 {
				t.Errorf("the file was read %d times of 4", n)
			}
			k.wants(out, "/sub/mine 1000:1000", "Read-only file system", "ran\n", "circle")
		})
	}
}

// TestImageVolumeStaysInside: no sub-path leads to what is not in the image.
func TestImageVolumeStaysInside(t *testing.T) {
	k := newKit(t)
	ref := pullVolume(k)
	id, pod := k.pod()
	for sub, code := range map[string]codes.Code{
		"../etc": codes.InvalidArgument, "data/../../etc": codes.InvalidArgument, "/data": codes.InvalidArgument,
		"data/outside": codes.InvalidArgument, "data/outside/passwd": codes.InvalidArgument, "absolute": codes.InvalidArgument,
		"circle": codes.InvalidArgument, "none": codes.NotFound, "data/hello/x": codes.NotFound,
	} {
		_, err := k.create(id, pod, k.shell("c", "true", withMounts(imageAt("/vol", ref, sub))))
		k.refused(err, code, "/vol")
	}
	_, err := k.create(id, pod, k.shell("c", "true", withMounts(imageAt("/vol", "127.0.0.1:1/not/there:1", ""))))
	k.refused(err, codes.NotFound, "ImageVolumeMountFailed", "not/there")
	if left, _ := filepath.Glob(filepath.Join(k.env.State, "pods", id, "*", "images", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestImageVolumeSubPathOfAnotherVolume: the kubelet says the sub-path of each volume,
// and of one that is no image has resolved it already.
func TestImageVolumeSubPathOfAnotherVolume(t *testing.T) {
	k := newKit(t)
	dir := t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "file"), []byte("below\n"), 0o644))
	id, pod := k.pod()
	out := k.run(id, pod, k.shell("c", "cat /vol/file", withMounts(&runtimeapi.Mount{ContainerPath: "/vol", HostPath: dir, ImageSubPath: "some/directory"})))
	k.wants(out, "below")
}

// TestImageVolumeOutlivesImageAndDaemon: what a container mounts stays until the
// container is removed, and goes then.
func TestImageVolumeOutlivesImageAndDaemon(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	ref := pullVolume(k)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("c", "exec sleep 600", withMounts(imageAt("/vol", ref, "data"))))
	late, err := k.create(id, pod, k.shell("late", "exec sleep 600", withMounts(imageAt("/vol", ref, "data"))))
	k.must(err)
	img, err := k.env.Client.Image.ImageStatus(k.ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	volumeID := img.GetImage().GetId()
	removeImage(k, ref)
	_, err = k.env.Restart(k.ctx)
	k.must(err)
	k.wants(k.exec(cid, "cat /vol/hello"), "hello of")
	for _, c := range []string{cid, late} {
		if m := k.status(c).Mounts; len(m) != 1 || m[0].GetImage().GetImageRef() != volumeID || m[0].GetImage().GetImage() != ref {
			t.Errorf("the status has the mounts %v, want %s", m, volumeID)
		}
	}
	// A gofer of the new daemon's, which finds the file nowhere but on disk.
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: late})
	k.must(err)
	k.wants(k.exec(late, "cat /vol/hello"), "hello of")
	k.must(os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0o200))
	k.wants(k.exec(late, "cat /vol/run"), "echo ran")

	for _, c := range []string{cid, late} {
		_, err = k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c})
		k.must(err)
	}
	if keys, _ := filepath.Glob(filepath.Join(k.env.Root, "images", "rootfs", "*")); len(keys) != 0 {
		t.Errorf("the store still holds %v", keys)
	}
	k.must(k.env.Client.RemovePod(k.ctx, id))
	k.must(k.env.Audit(k.ctx))
}

// TestImageVolumeAfterLostRecord: the mounts of a pod whose record is gone are taken
// away before its directory is.
func TestImageVolumeAfterLostRecord(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	ref := pullVolume(k)
	k.must(k.env.MarkBaseline())
	cfg := k.env.PodConfig("lost")
	id, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	k.start(id, cfg, k.shell("c", "exec sleep 600", withMounts(imageAt("/vol", ref, ""))))
	k.must(k.env.Kill())
	k.must(os.RemoveAll(filepath.Join(k.env.Root, "pods", id)))
	_, err = k.env.Start(k.ctx)
	k.must(err)
	k.must(k.env.Audit(k.ctx))
	again, pod := k.pod()
	k.wants(k.run(again, pod, k.shell("c", "cat /vol/data/hello", withMounts(imageAt("/vol", ref, "")))), "hello of")
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// An image that a container mounts is mounted by the daemon, below the container's
// directory, and bound from there. Which ones there are follows from the request, so
// that any daemon can take them away.

// FindImages finds the images among a request's mounts: ids, by their place.
func (b *Builder) FindImages(ctx context.Context, mounts []*runtimeapi.Mount) (map[int]string, error) {
	ids := map[int]string{}
	for i, mount := range mounts {
		if mount.GetImage() == nil {
			continue
		}
		img, err := b.images.Get(ctx, mount.GetImage().GetImage())
		if err != nil {
			return nil, imageVolumeError(mount, fmt.Errorf("find image: %w", err))
		}
		ids[i] = img.ID
	}
	return ids, nil
}

// imageVolumeError has the words by which the kubelet tells this failure from others.
func imageVolumeError(mount *runtimeapi.Mount, err error) error {
	return fmt.Errorf("mount image %s at %s: %w: %w", mount.GetImage().GetImage(), mount.GetContainerPath(), crierrors.ErrImageVolumeMountFailed, err)
}

// MountImages mounts the images among the mounts, which are copies of the
// request's, and sets where they are.
func (b *Builder) MountImages(ctx context.Context, c *state.Container, mounts []*runtimeapi.Mount) error {
	for i, mount := range mounts {
		if mount.GetImage() == nil {
			continue
		}
		source, err := b.mountImage(ctx, c, i, mount)
		if err != nil {
			return imageVolumeError(mount, err)
		}
		mount.HostPath = source
	}
	return nil
}

func (b *Builder) mountImage(ctx context.Context, c *state.Container, n int, mount *runtimeapi.Mount) (string, error) {
	img, err := b.images.Get(ctx, c.Meta.VolumeImages[n])
	if err != nil {
		return "", fmt.Errorf("find image: %w", err)
	}
	target := b.paths.Image(c.Pod.ID(), c.ID(), n)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	crashpoint.Here("before image volume")
	if err := b.images.MountVolume(layout.ImageKey(c.ID(), n), img, target, c.Pod.IDs()); err != nil {
		return "", err
	}
	crashpoint.Here("after image volume")
	return pathInImage(target, mount.GetImageSubPath())
}

// pathInImage finds a sub-path in a mounted image. No part of it may lead out of
// the image, not even back in again, as an absolute link would. The image cannot
// change, so what is found stays what the path means.
func pathInImage(root, sub string) (string, error) {
	if sub == "" {
		return root, nil
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open image: %w", err)
	}
	defer unix.Close(dir)
	fd, err := openBeneath(dir, sub)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return "", fmt.Errorf("the image has no path %q: %w", sub, errdefs.ErrNotFound)
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return "", fmt.Errorf("the path %q leads out of the image, or in a circle: %w", sub, errdefs.ErrInvalidArgument)
	case err != nil:
		return "", fmt.Errorf("open path %q of the image: %w", sub, err)
	}
	defer unix.Close(fd)
	found, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", fmt.Errorf("find path %q of the image: %w", sub, err)
	}
	return found, nil
}

func openBeneath(dir int, sub string) (int, error) {
	return openat2(dir, sub, unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// openat2 is openat2(2), tried again as that page asks for: EAGAIN is a rename or
// mount anywhere on the machine that got in between.
func openat2(dir int, name string, how unix.OpenHow) (int, error) {
	const attempts = 32
	for i := 0; ; i++ {
		fd, err := unix.Openat2(dir, name, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && i < attempts {
			continue
		}
		return fd, err
	}
}

// Unmount takes away all that is mounted below a container's directory.
func (b *Builder) Unmount(ctx context.Context, c *state.Container) error {
	errs := []error{b.images.UnmountRootfs(ctx, c.ID(), b.paths.Rootfs(c.Pod.ID(), c.ID()))}
	for i, mount := range c.Config().GetMounts() {
		if mount.GetImage() != nil {
			crashpoint.Here("before image volume unmount")
			errs = append(errs, b.images.UnmountRootfs(ctx, layout.ImageKey(c.ID(), i), b.paths.Image(c.Pod.ID(), c.ID(), i)))
			crashpoint.Here("after image volume unmount")
		}
	}
	return errors.Join(errs...)
}

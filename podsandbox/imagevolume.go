package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// An image that a container mounts is mounted by the daemon, below the container's
// folder, and bound from there. Which ones there are follows from the request, so
// that any daemon can take them away.

// imageVolume is the n-th mount of a container's request.
type imageVolume struct {
	key    string // in the image store
	target string
}

func (m *Manager) imageVolume(pod, id string, n int) imageVolume {
	return imageVolume{
		key:    id + imageKeyMark + strconv.Itoa(n),
		target: filepath.Join(m.paths.images(pod, id), strconv.Itoa(n)),
	}
}

// findVolumeImages finds the images among a request's mounts: ids, by their place.
func (m *Manager) findVolumeImages(ctx context.Context, mounts []*runtimeapi.Mount) (map[int]string, error) {
	ids := map[int]string{}
	for i, mount := range mounts {
		if mount.GetImage() == nil {
			continue
		}
		img, err := m.opts.Images.Get(ctx, mount.GetImage().GetImage())
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

// mountImages mounts the images among the mounts, which are copies of the
// request's, and sets where they are.
func (m *Manager) mountImages(ctx context.Context, c *container, mounts []*runtimeapi.Mount) error {
	for i, mount := range mounts {
		if mount.GetImage() == nil {
			continue
		}
		source, err := m.mountImage(ctx, c, i, mount)
		if err != nil {
			return imageVolumeError(mount, err)
		}
		mount.HostPath = source
	}
	return nil
}

func (m *Manager) mountImage(ctx context.Context, c *container, n int, mount *runtimeapi.Mount) (string, error) {
	img, err := m.opts.Images.Get(ctx, c.Meta.VolumeImages[n])
	if err != nil {
		return "", fmt.Errorf("find image: %w", err)
	}
	v := m.imageVolume(c.pod.id(), c.id(), n)
	if err := os.MkdirAll(filepath.Dir(v.target), 0o700); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	crashpoint.Here("before image volume")
	if err := m.opts.Images.MountVolume(v.key, img, v.target, c.pod.ids()); err != nil {
		return "", err
	}
	crashpoint.Here("after image volume")
	return pathInImage(v.target, mount.GetImageSubPath())
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

// unmount takes away all that is mounted below a container's folder.
func (m *Manager) unmount(ctx context.Context, c *container) error {
	errs := []error{m.opts.Images.UnmountRootfs(ctx, c.id(), m.paths.rootfs(c.pod.id(), c.id()))}
	for i, mount := range c.config().GetMounts() {
		if mount.GetImage() != nil {
			v := m.imageVolume(c.pod.id(), c.id(), i)
			crashpoint.Here("before image volume unmount")
			errs = append(errs, m.opts.Images.UnmountRootfs(ctx, v.key, v.target))
			crashpoint.Here("after image volume unmount")
		}
	}
	return errors.Join(errs...)
}

// unmountOrphan does the same for a container whose record is gone: by what it
// finds.
func (m *Manager) unmountOrphan(ctx context.Context, pod, id string) error {
	var errs []error
	if fi, err := os.Stat(m.paths.rootfs(pod, id)); err == nil && fi.IsDir() {
		errs = append(errs, m.opts.Images.UnmountRootfs(ctx, id, m.paths.rootfs(pod, id)))
	}
	for _, name := range namesIn(m.paths.images(pod, id)) {
		if n, err := strconv.Atoi(name); err == nil {
			v := m.imageVolume(pod, id, n)
			errs = append(errs, m.opts.Images.UnmountRootfs(ctx, v.key, v.target))
		}
	}
	return errors.Join(errs...)
}

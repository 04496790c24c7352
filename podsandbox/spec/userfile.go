package spec

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// maxUserFile bounds etc/passwd and etc/group of an image, in bytes.
const maxUserFile = 4 << 20

// readInRoot reads a file of an image, as the container would see it: links are
// followed inside root only. Images are not trusted: what is not a regular file is
// not even opened, and the size is bounded. An absent file is empty. Other errors are ErrInvalidArgument, or
// ErrFailedPrecondition when root itself cannot be opened.
func readInRoot(root, name string, limit int64) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root file system %s: %w: %w", root, err, errdefs.ErrFailedPrecondition)
	}
	defer unix.Close(dir)
	fd, err := openInRoot(dir, name)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return nil, invalidf("image file %s cannot be followed: %v", name, err)
	case err != nil:
		return nil, fmt.Errorf("open image file %s: %w: %w", name, err, errdefs.ErrFailedPrecondition)
	}
	held := os.NewFile(uintptr(fd), "image file "+name)
	defer held.Close()
	data, err := regular.ReadHeld(held, limit)
	switch {
	case errors.Is(err, regular.ErrNotRegular), errors.Is(err, regular.ErrTooLarge):
		return nil, invalidf("%v", err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return data, nil
}

func openInRoot(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// EAGAIN: a rename or mount anywhere on the machine got in between.
	const attempts = 32
	for i := 0; ; i++ {
		fd, err := unix.Openat2(dir, name, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && i < attempts {
			continue
		}
		return fd, err
	}
}

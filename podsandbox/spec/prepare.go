package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PrepareMounts resolves the links in the sources of a request's mounts, and makes
// a source that does not exist as a directory. It returns copies for Input.Mounts.
// A directory that was made stays, also after an error, since it may be in use.
//
// The interface's text would have a missing source refused; but a hostPath volume
// of the type "" is defined by Kubernetes to be made on use, the kubelet leaves
// that to the runtime, and the other runtimes do it.
//
// Errors name the source: ErrInvalidArgument (not absolute), ErrFailedPrecondition
// (a link to nowhere or in a circle, a parent that is no directory, a read-only file
// system), ErrPermissionDenied, ErrResourceExhausted (a full disk).
func PrepareMounts(mounts []*runtimeapi.Mount) ([]*runtimeapi.Mount, error) {
	out := make([]*runtimeapi.Mount, 0, len(mounts))
	for _, m := range mounts {
		m = proto.CloneOf(m)
		if m.GetImage() == nil {
			source, err := mountSource(m.GetHostPath())
			if err != nil {
				return nil, fmt.Errorf("source of mount %s: %w", m.GetContainerPath(), err)
			}
			m.HostPath = source
		}
		out = append(out, m)
	}
	return out, nil
}

func mountSource(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return "", invalidf("%q must be absolute", name)
	}
	resolved, err := filepath.EvalSymlinks(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, classifyPath(name, err)
	}
	if info, err := os.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("%s is a symbolic link to nowhere: %w", name, errdefs.ErrFailedPrecondition)
	}
	if err := os.MkdirAll(name, 0o755); err != nil {
		return "", classifyPath(name, err)
	}
	resolved, err = filepath.EvalSymlinks(name)
	return resolved, classifyPath(name, err)
}

// classifyPath keeps the error of the operating system, which may not name the path.
func classifyPath(name string, err error) error {
	if err == nil {
		return nil
	}
	var class error = errdefs.ErrFailedPrecondition
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		class = errdefs.ErrPermissionDenied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		class = errdefs.ErrResourceExhausted
	}
	return fmt.Errorf("prepare %s: %w: %w", name, err, class)
}

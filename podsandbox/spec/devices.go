package spec

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Devices turns the devices of a request into nodes of the container. It looks at
// the host's files, and follows links.
//
// Errors: ErrInvalidArgument for a device that the host does not have;
// ErrFailedPrecondition for what is there and no device, or cannot be looked at.
func Devices(requested []*runtimeapi.Device) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	for _, r := range requested {
		d, err := hostDevice(r)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func hostDevice(r *runtimeapi.Device) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	switch err := unix.Stat(r.GetHostPath(), &st); {
	case errors.Is(err, unix.ENOENT):
		return specs.LinuxDevice{}, invalidf("device %s does not exist on the host", r.GetHostPath())
	case err != nil:
		return specs.LinuxDevice{}, fmt.Errorf("look at device %s: %w: %w", r.GetHostPath(), err, errdefs.ErrFailedPrecondition)
	}
	d := specs.LinuxDevice{
		Path:  path.Clean(r.GetContainerPath()),
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, fmt.Errorf("device %s is a directory or a file of the host, and no device: %w", r.GetHostPath(), errdefs.ErrFailedPrecondition)
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, nil
}

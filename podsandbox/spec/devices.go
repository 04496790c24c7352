package spec

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandboxDevices are the character devices that the Sentry has itself, whatever
// the host has: a node of one of these numbers opens the sandbox's own device. In
// gVisor: pkg/sentry/devices, pkg/sentry/fsimpl/fuse.
var sandboxDevices = map[[2]int64]string{
	{1, 3}: "null", {1, 5}: "zero", {1, 7}: "full", {1, 8}: "random", {1, 9}: "urandom",
	{5, 0}: "tty", {10, 200}: "net/tun", {10, 229}: "fuse",
}

// Devices turns the devices of a request into nodes of the container. It looks at
// the host's files, and follows links.
//
// Errors: ErrInvalidArgument for a path or permissions that are none;
// ErrNeedsNative for all but the devices that the sandbox has itself, which are
// served by the sandbox and not by the host.
func Devices(requested []*runtimeapi.Device) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	for _, r := range requested {
		d, err := hostDevice(r)
		if err != nil {
			return nil, err
		}
		if err := checkDevice(d); err != nil {
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
		return d, needsNativef("device %s, which is a folder or a file of the host", r.GetHostPath())
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, nil
}

// checkDevice refuses what is not one of the sandbox's own devices. There is no
// device cgroup in the sandbox: its own devices are there for every container.
func checkDevice(d specs.LinuxDevice) error {
	_, own := sandboxDevices[[2]int64{d.Major, d.Minor}]
	switch {
	case d.Type != "c" && d.Type != "u" || !own:
		return needsNativef("device %s (%s %d:%d) of the host", d.Path, d.Type, d.Major, d.Minor)
	case !strings.HasPrefix(path.Clean(d.Path), "/dev/"):
		return needsNativef("device node %s outside of /dev", d.Path)
	}
	return nil
}

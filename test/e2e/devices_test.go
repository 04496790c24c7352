package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// cdiNode is a node whose daemon reads CDI specifications from a directory of the test.
func cdiNode(t *testing.T) (kit, string) {
	t.Helper()
	specs := filepath.Join(t.TempDir(), "cdi")
	return ownNode(t, testenv.Options{Config: fmt.Sprintf("[cdi]\nspec_dirs = [%q]\n", specs)}), specs
}

// TestCDIDevices: what a device's specification says about environment, files,
// groups and nodes is what the container sees, and what the sandbox cannot give is
// refused under the device's name.
func TestCDIDevices(t *testing.T) {
	k, specs := cdiNode(t)
	vendor := t.TempDir()
	k.must(os.WriteFile(filepath.Join(vendor, "driver"), []byte("version 7\n"), 0o644))
	k.must(os.Symlink("driver", filepath.Join(vendor, "link")))
	k.must(os.MkdirAll(specs, 0o755))
	k.must(os.WriteFile(filepath.Join(specs, "vendor.json"), fmt.Appendf(nil, `{
		"cdiVersion": "0.7.0", "kind": "vendor.test/gpu",
		"containerEdits": {"env": ["VENDOR=here"]},
		"devices": [
			{"name": "0", "containerEdits": {
				"env": ["GPU=0"], "additionalGids": [4711],
				"deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/zero"}],
				"mounts": [{"hostPath": %q, "containerPath": "/usr/lib/driver", "options": ["ro", "nosuid", "bind"]}]}},
			{"name": "real", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu", "type": "c", "major": 195, "minor": 0}]}},
			{"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/vendor-hook"}]}},
			{"name": "lost", "containerEdits": {"mounts": [{"hostPath": "/nowhere/lib", "containerPath": "/lib/x"}]}}]}`,
		filepath.Join(vendor, "link")), 0o644))
	id, pod := k.pod()

	script := `echo $VENDOR $GPU; cat /usr/lib/driver; id -G; head -c 2 /dev/vendor0 | od -An -tx1; touch /usr/lib/driver || echo read-only`
	withDevice := func(name string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.CDIDevices = []*runtimeapi.CDIDevice{{Name: name}} }
	}
	out := k.run(id, pod, k.shell("field", script, withDevice("vendor.test/gpu=0")))
	k.wants(out, "here 0\n", "version 7\n", "4711", "00 00", "read-only")
	out = k.run(id, pod, k.shell("annotation", "echo $GPU", func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{"cdi.k8s.io/vendor_0": "vendor.test/gpu=0"}
	}))
	k.wants(out, "0\n")

	users, usersPod := k.pod(ownUsers, func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "cdi-users" })
	out = k.run(users, usersPod, k.shell("mapped", "cat /usr/lib/driver; stat -c '%u %g' /usr/lib/driver", withDevice("vendor.test/gpu=0")))
	k.wants(out, "version 7\n", "0 0\n")

	for device, want := range map[string]struct {
		code  codes.Code
		words []string
	}{
		"vendor.test/gpu=real":   {codes.FailedPrecondition, []string{"vendor.test/gpu=real", "/dev/gpu (c 195:0)", "not possible in a gVisor sandbox"}},
		"vendor.test/gpu=hooked": {codes.FailedPrecondition, []string{"vendor.test/gpu=hooked", "hook createContainer /usr/bin/vendor-hook"}},
		"vendor.test/gpu=lost":   {codes.FailedPrecondition, []string{"vendor.test/gpu=lost", "/nowhere/lib"}},
		"vendor.test/gpu=9":      {codes.NotFound, []string{"vendor.test/gpu=9", specs}},
		"gpu0":                   {codes.InvalidArgument, []string{"gpu0", "VENDOR/CLASS=NAME"}},
	} {
		_, err := k.create(id, pod, k.shell("refused", "true", withDevice(device)))
		k.refused(err, want.code, want.words...)
	}
}

// TestDevices: of the devices of a node, a container gets those that the sandbox
// has itself.
func TestDevices(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	device := func(host, place string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: host, ContainerPath: place, Permissions: "rw"}}
		}
	}
	out := k.run(id, pod, k.shell("own", "head -c 3 /dev/deep/zero | od -An -tx1", device("/dev/zero", "/dev/deep/zero")))
	k.wants(out, "00 00 00")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Log("no FUSE on this host: not tried")
	} else {
		out = k.run(id, pod, k.shell("fuse", "exec 3<>/dev/fuse && echo opened", device("/dev/fuse", "/dev/fuse")))
		k.wants(out, "opened")
	}

	_, err := k.create(id, pod, k.shell("host", "true", device("/dev/ptmx", "/dev/ptmx")))
	k.refused(err, codes.FailedPrecondition, "/dev/ptmx (c 5:2)", "not possible in a gVisor sandbox")
	_, err = k.create(id, pod, k.shell("absent", "true", device("/dev/nosuch", "/dev/nosuch")))
	k.refused(err, codes.InvalidArgument, "/dev/nosuch")
}

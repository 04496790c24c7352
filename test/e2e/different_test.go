package e2e

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestDifferencesAreDocumented holds the list in docs/kubernetes.md to what a
// container gets: a sandbox that can more than is said there fails it, too.
func TestDifferencesAreDocumented(t *testing.T) {
	k := imageKit{newKit(t)}
	ref := k.pushOnBusybox("kernel", k.plainLayer(
		tarEntry{Header: tar.Header{Name: "bin/kernel", Typeflag: tar.TypeReg, Mode: 0o755}, content: k.testProgram("kernel")}))
	k.pull(ref)
	k.Cleanup(func() { removeImage(k.kit, ref) })
	id, pod := k.pod()
	vol := sharedDirectory(k.kit, "kernel")
	c := testenv.ContainerConfig("c", ref, "/bin/kernel", "/vol", "/root", "/dev/shm")
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: vol}}
	security(c).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}
	k.start(id, pod, c)
	k.logHas(pod, c, "watching")
	for _, name := range []string{"of-the-node", "end"} {
		k.must(os.WriteFile(filepath.Join(vol, name), []byte("x"), 0o644))
	}
	out := k.logHas(pod, c, "own events")
	var want []string
	for dir, tmpfile := range map[string]string{"/vol": "ENOTSUP", "/root": "EISDIR", "/dev/shm": "ENOTSUP"} {
		want = append(want, "fallocate 0 in "+dir+": works", "O_TMPFILE in "+dir+": "+tmpfile)
		for _, mode := range []string{"KEEP_SIZE", "PUNCH_HOLE", "ZERO_RANGE", "COLLAPSE_RANGE"} {
			want = append(want, "fallocate "+mode+" in "+dir+": ENOTSUP")
		}
	}
	k.wants(out, append(want,
		"NETLINK_ROUTE: works", "NETLINK_NETFILTER: EPROTONOSUPPORT", "NETLINK_SOCK_DIAG: EPROTONOSUPPORT", "io_uring_setup: ENOSYS",
		"getxattr of an ACL in /vol: ENOTSUP",
		"events of the node: 0 bytes", "own events: true")...)
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// directoryWithSubmount is a directory of the host with a tmpfs mounted in it.
func directoryWithSubmount(k kit, name string) string {
	k.Helper()
	dir := sharedDirectory(k, name)
	sub := filepath.Join(dir, "sub")
	k.must(os.Mkdir(sub, 0o755))
	k.must(unix.Mount("tmpfs", sub, "tmpfs", 0, "mode=777"))
	k.Cleanup(func() { _ = unix.Unmount(sub, unix.MNT_DETACH) })
	k.must(os.WriteFile(filepath.Join(sub, "file"), []byte("below\n"), 0o666))
	return dir
}

// TestRecursiveReadOnly: nothing can be written below the mount, through the sandbox
// or by a sandbox process that was taken over.
func TestRecursiveReadOnly(t *testing.T) {
	k := newKit(t)
	dir := directoryWithSubmount(k, "rro")
	id, pod := k.pod()
	c := k.shell("c", `cat /vol/sub/file; for f in /vol/x /vol/sub/x /vol/sub/file; do echo x 2>/dev/null > $f && echo "wrote $f"; done
		touch /vol/sub/x 2>&1; echo done; exec sleep 600`, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: dir, Readonly: true, RecursiveReadOnly: true}}
	})
	cid := k.start(id, pod, c)
	out := k.logHas(pod, c, "done")
	k.wants(out, "below", "Read-only file system")
	for _, f := range []string{"/vol/x", "/vol/sub/x", "/vol/sub/file"} {
		if !missing(out, "wrote "+f) {
			t.Errorf("%s was written", f)
		}
	}
	if got := k.status(cid).Mounts; len(got) != 1 || !got[0].RecursiveReadOnly {
		t.Errorf("the status has the mounts %v", got)
	}
	// What the gofer has is what the sandbox process can get from it.
	mounts := goferMounts(k, id)
	found := false
	for at := range mounts {
		vol, ok := strings.CutSuffix(at, "/sub")
		if !ok {
			continue
		}
		found = true
		if !hasOption(mounts[vol], "ro") || !hasOption(mounts[at], "ro") {
			t.Errorf("the gofer has the volume mounted with %q and %q", mounts[vol], mounts[at])
		}
	}
	if !found {
		t.Errorf("the gofer has the mounts %v", mounts)
	}
}

func TestRecursiveReadOnlyBadRequests(t *testing.T) {
	k := newKit(t)
	dir := sharedDirectory(k, "rro-bad")
	id, pod := k.pod()
	const private, slave, shared = runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
		runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	for _, m := range []*runtimeapi.Mount{
		{Readonly: true, Propagation: slave}, {Readonly: true, Propagation: shared}, {Readonly: false, Propagation: private},
	} {
		m.ContainerPath, m.HostPath, m.RecursiveReadOnly = "/vol", dir, true
		_, err := k.create(id, pod, k.shell("bad", "true", func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{m} }))
		k.refused(err, codes.InvalidArgument, "recursively read-only")
	}
}

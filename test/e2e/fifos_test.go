package e2e

import (
	"archive/tar"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestFIFOs: those of an image connect the processes of a container, as in images with
// supervisors; one of the node in a volume is refused at once, and keeps nobody from
// that volume.
func TestFIFOs(t *testing.T) {
	k := imageKit{newKit(t)}
	layer := k.plainLayer(
		tarEntry{Header: tar.Header{Name: "etc/sv/supervise/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 3}},
		tarEntry{Header: tar.Header{Name: "etc/sv/supervise/control", Typeflag: tar.TypeFifo, Mode: 0o600, Uid: 3, Gid: 4}},
		tarEntry{Header: tar.Header{Name: "etc/sv/supervise/removed", Typeflag: tar.TypeFifo, Mode: 0o600}},
	)
	ref := k.pushOnBusybox("fifos:1", layer,
		k.plainLayer(tarEntry{Header: tar.Header{Name: "etc/sv/supervise/.wh.removed", Typeflag: tar.TypeReg, Mode: 0o600}}))
	k.pull(ref)
	k.Cleanup(func() { removeImage(k.kit, ref) })
	vol := sharedDirectory(k.kit, "fifos")
	k.must(unix.Mkfifo(filepath.Join(vol, "fifo"), 0o666))
	id, pod := k.pod()
	c := testenv.ContainerConfig("c", ref, "/bin/sh", "-c", `cd /etc/sv/supervise; stat -c '%a %u:%g' . control; ls
		(echo through > control &); cat control
		cat /vol/fifo; echo status $?; (echo x > /vol/fifo); echo status $?
		mkfifo /vol/own; (echo own > /vol/own &); cat /vol/own; echo x > /vol/file; ls /vol`)
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: vol}}
	out := k.run(id, pod, c)
	k.wants(out, "700 3:0\n600 3:4\ncontrol\nthrough\n", "Operation not permitted\nstatus 1\n", "own\n", "file\n")
	if n := strings.Count(out, "Operation not permitted\nstatus 1\n"); n != 2 {
		t.Errorf("%d of two opens were refused:\n%s", n, out)
	}
}

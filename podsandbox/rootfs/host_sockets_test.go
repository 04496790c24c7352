package rootfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestReachesSockets(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for _, d := range []string{"run/spire/sockets", "run/spire-other", "csi", "link"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	csi := filepath.Join(dir, "csi") // as a driver makes it for each pod
	if err := unix.Mount(filepath.Join(dir, "run/spire/sockets"), csi, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(csi, unix.MNT_DETACH) })
	b := &Builder{opts: Options{HostSockets: []string{"/no/such/path", filepath.Join(dir, "run/spire")}}}
	for path, want := range map[string]bool{
		"run/spire": true, "run/spire/sockets": true, "csi": true, "run/spire-other": false, "run": false, "link": false, "none": false,
	} {
		if got := b.ReachesSockets([]*runtimeapi.Mount{{HostPath: "/proc"}, {HostPath: filepath.Join(dir, path)}}); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

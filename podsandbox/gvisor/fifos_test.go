package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func mkfifo(t *testing.T, dir, name string, mode uint32, uid, gid int) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{unix.Mkfifo(name, 0), os.Chown(name, uid, gid), os.Chmod(name, os.FileMode(mode))} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// writableVolume is a directory of the host that a container can write to.
func writableVolume(t *testing.T, spec *specs.Spec) string {
	t.Helper()
	dir := t.TempDir()
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: dir, Options: []string{"rbind", "rw"}})
	return dir
}

// The FIFOs of an image connect processes of the container, with the owner and mode
// that they have in the image. What else the image has by such a name stays.
func TestStartMakesFIFOsOfTheImage(t *testing.T) {
	for name, readonly := range map[string]bool{"written": false, "read-only": true} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t)
			root := newRootfs(t)
			mkfifo(t, root, "etc/service/supervise/control", 0o640, 7, 8)
			mkfifo(t, root, "etc/service/supervise/ok", 0o622, 0, 0)
			mkfifo(t, root, "real/fifo", 0o600, 0, 0)
			mkfifo(t, root, "unlisted", 0o600, 0, 0)
			outside := t.TempDir()
			mkfifo(t, outside, "fifo", 0o600, 0, 0)
			for _, err := range []error{
				os.Chmod(filepath.Join(root, "etc/service/supervise"), 0o711),
				os.Symlink("/real", filepath.Join(root, "link")), os.Symlink(outside, filepath.Join(root, "out")),
				os.WriteFile(filepath.Join(root, "file"), []byte("content\n"), 0o644), os.Symlink("nothing", filepath.Join(root, "dangling")),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			before := snapshot(t, root)
			spec := shell(root, `
				cd /etc/service/supervise
				stat -c '%A %u:%g' control . ; (echo through > control &) ; cat control
				(cat /link/fifo &) ; echo linked > /real/fifo; wait
				exec 3<>ok; echo both >&3; read word <&3; echo $word
				cat /file; ls /out /nothing 2>&1; timeout 10 cat /unlisted; echo status $?`)
			spec.Root.Readonly = readonly
			writableVolume(t, spec) // the conditions of one must not change those of the image
			out, _ := p.finish(p.layered(spec, engine.Writes{
				Layers: map[string]engine.Layer{"/": {File: layerFile(t)}},
				FIFOs: []string{
					"/etc/service/supervise/control", "/etc/service/supervise/ok", "/link/fifo", "/file", "/dangling", "/out/fifo",
					"/none/at/all", "/", "", "/..", "/../../etc/passwd", "/etc/service/supervise/control", "/file/below",
				},
			}))
			for _, want := range []string{
				"prw-r----- 7:8\n", "drwx--x--x 0:0\n", "through\n", "linked\n", "both\n", "content\n",
				"ls: /out: No such file or directory\n", "ls: /nothing: No such file or directory\n",
				"can't open '/unlisted': Operation not permitted\nstatus 1\n",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in the output:\n%s", want, out)
				}
			}
			if after := snapshot(t, root); after != before {
				t.Errorf("the image has changed:\n%s\nand was\n%s", after, before)
			}
		})
	}
}

// A FIFO of the host in a volume is refused at once, to who reads and who writes, and
// nobody who uses the volume waits for that.
func TestFIFOOfTheHostIsRefused(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), `
		cat /vol/fifo; echo read $?
		(echo x > /vol/fifo) 2>&1; echo written $?
		dd if=/vol/fifo of=/dev/null iflag=nonblock; echo nonblocking $?
		echo x > /vol/file; mkdir /vol/dir; mv /vol/file /vol/dir; ls /vol /vol/dir; echo done`)
	mkfifo(t, writableVolume(t, spec), "fifo", 0o666, 0, 0)
	c := p.start(spec)
	c.waitFor(t, "done\n")
	out := c.String()
	for _, want := range []string{"'/vol/fifo': Operation not permitted\nread 1\n", "Operation not permitted\nwritten 1\n", "nonblocking 1\n", "file\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

// A FIFO that a container makes in a volume connects its processes. Who waits for the
// other end can be killed, and keeps nobody from the volume.
func TestFIFOMadeInAVolume(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), `
		mkfifo /vol/fifo /vol/none; (echo through > /vol/fifo &); cat /vol/fifo
		cat /vol/none & sleep 1; mv /vol/none /vol/moved; echo x > /vol/file; kill -9 $!; wait $!; echo killed $?
		echo waits; cat /vol/moved`)
	dir := writableVolume(t, spec)
	c := p.start(spec)
	c.waitFor(t, "waits\n")
	if out := c.String(); !strings.Contains(out, "through\n") || !strings.Contains(out, "killed 137\n") {
		t.Errorf("output %q", out)
	}
	if out, _, err := p.sh(c.ID, "(echo exec > /vol/fifo &); cat /vol/fifo"); err != nil || out != "exec\n" {
		t.Errorf("an exec says %q, %v", out, err)
	}
	if err := p.Signal(testContext(t), c.ID, int(unix.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(testContext(t), c.ID); err != nil || st.Code != 137 {
		t.Errorf("it ended with %+v, %v", st, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "fifo")); !os.IsNotExist(err) {
		t.Errorf("the host has it: %v", err)
	}
}

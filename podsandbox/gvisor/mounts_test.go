package gvisor

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestMountBinds(t *testing.T) {
	p := startPod(t)
	dir, etc := t.TempDir(), filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(etc, []byte("10.1.2.3 somewhere\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(newRootfs(t), `cat /vol/x /etc/hosts
		echo from the pod > /vol/y && echo written
		touch /ro/z || echo read-only
		echo > /etc/hosts || echo file read-only`)
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/vol", Type: "bind", Source: dir, Options: []string{"rbind", "rw", "rshared"}},
		specs.Mount{Destination: "/ro", Type: "bind", Source: dir, Options: []string{"rbind", "ro", "rprivate"}},
		specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: etc, Options: []string{"bind", "ro"}},
	)
	out, _ := p.run(spec)
	for _, want := range []string{"from the host", "10.1.2.3", "written", "\nread-only", "file read-only"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "y")); string(b) != "from the pod\n" {
		t.Errorf("host reads %q", b)
	}
	if _, err := os.Stat(filepath.Join(dir, "z")); err == nil {
		t.Error("read-only bind was written")
	}
}

func TestMountOfAMissingSource(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/no/such/source", Options: []string{"rbind"}})
	c, _ := newContainer(t, spec)
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	err := p.Start(testContext(t), c.Container)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/no/such/source") {
		t.Errorf("%v, want InvalidArgument with the gofer's words", err)
	}
}

func TestMountReadOnlyRoot(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	spec := shell(root, "touch /x || echo read-only; touch /tmp/x || echo all of it")
	spec.Root.Readonly = true
	out, _ := p.run(spec)
	if !strings.Contains(out, "read-only\n") || !strings.Contains(out, "all of it") {
		t.Errorf("output %q", out)
	}
}

func TestMountOwnCgroup(t *testing.T) {
	p := startPod(t)
	out, _ := p.run(shell(newRootfs(t), "cat /sys/fs/cgroup/pids.current; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x || echo read-only"))
	if !strings.Contains(out, "0::/\n") || !strings.Contains(out, "read-only\n") {
		t.Errorf("output %q", out)
	}
}

func TestMaskedPaths(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	vol := t.TempDir()
	for _, f := range []string{filepath.Join(root, "etc/secret"), filepath.Join(vol, "secret")} {
		if err := os.WriteFile(f, []byte("the secret\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "etc/private"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/private/key"), []byte("the key\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, `wc -c < /proc/meminfo; cat /etc/secret /vol/secret; ls /etc/private /proc/irq /sys/devices
		touch /etc/private/x || echo mask is read-only
		for f in /proc/kcore /proc/acpi /sys/firmware/x; do [ -e $f ] && echo $f was created; done; cat /proc/uptime`)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind"}})
	spec.Linux.MaskedPaths = []string{
		"/proc/acpi", "/proc/kcore", "/proc/meminfo", "/proc/irq", "/sys/firmware", "/sys/devices",
		"/etc/secret", "/etc/private", "/vol/secret", "/no/such/path",
	}
	out, code := p.run(spec)
	if !strings.HasPrefix(out, "0\n") {
		t.Errorf("/proc/meminfo is not empty: %q", out)
	}
	for _, not := range []string{"the secret", "key", "was created", "\nsystem\n"} {
		if strings.Contains(out, not) {
			t.Errorf("%q in the output:\n%s", not, out)
		}
	}
	if !strings.Contains(out, "mask is read-only") || code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestReadonlyPaths(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	// Every file that there is, as root with all capabilities: also those that
	// a later gVisor adds.
	script := `for f in $(find /proc/sys -type f); do
			v=$(cat $f); for n in "$v" 1 "1024 2048"; do (echo $n > $f) 2>/dev/null && echo WRITTEN $f; done
			[ "$(cat $f)" = "$v" ] || [ $f = /proc/sys/kernel/random/uuid ] || echo CHANGED $f
		done
		echo > /etc/conf/x || echo conf is read-only
		find /proc/sys -type f | sed "s/^/FILE /"
		[ "$(cat /proc/sys/kernel/random/uuid)" != "$(cat /proc/sys/kernel/random/uuid)" ] && echo uuid is fresh
		cat /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward
		echo 100 > /proc/self/oom_score_adj && echo own files are writable
		cat /proc/sys/net/ipv4/ip_local_port_range`
	if err := os.Mkdir(filepath.Join(root, "etc/conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, script)
	spec.Process.Capabilities.Bounding, spec.Process.Capabilities.Effective, spec.Process.Capabilities.Permitted = capability.All, capability.All, capability.All
	open, _ := p.run(spec)
	spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/etc/conf", "/no/such"}
	out, _ := p.run(spec)
	if !strings.Contains(open, "WRITTEN") {
		t.Errorf("nothing was written without protection, so the test proves nothing:\n%s", open)
	}
	if strings.Contains(out, "WRITTEN") || strings.Contains(out, "CHANGED") {
		t.Errorf("something was written:\n%s", out)
	}
	for _, want := range []string{"conf is read-only", "uuid is fresh", "pod-host", "own files are writable"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	// No file is missing, and none is there but what is known of the Sentry beside its own.
	with, without := filesOf(out), filesOf(open)
	for name := range sysctl.Shown(nil) {
		without["/proc/sys/"+name] = true
	}
	if len(without) < 50 || !maps.Equal(with, without) {
		t.Errorf("files without protection %v and with it %v", without, with)
	}
	// The values are those of the sandbox.
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; len(strings.Fields(last)) != 2 {
		t.Errorf("port range reads %q", last)
	}
}

// filesOf are the files that the script lists.
func filesOf(out string) map[string]bool {
	files := map[string]bool{}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "FILE "); ok {
			files[strings.TrimSpace(name)] = true
		}
	}
	return files
}

func TestPrepareSpecStripsAnnotationsOfUsers(t *testing.T) {
	a := annotationsOf(containerWith(map[string]string{"dev.gvisor.spec.rootfs.overlay": "memory", "mine": "kept"}), "pod")
	if a["mine"] != "kept" {
		t.Error("annotation of the user is gone")
	}
	for k := range a {
		if strings.HasPrefix(k, "dev.gvisor.") {
			t.Errorf("%s is left", k)
		}
	}
}

// /tmp is a directory of the root file system like any other, however empty it is: as
// the image has it, in its layer, and not to be written to where the root is not.
// gVisor would put memory there.
func TestMountTmpIsOfTheRootFileSystem(t *testing.T) {
	p := startPod(t)
	const look = `stat -c '%a %u %g' /tmp; ls -A /tmp; grep -c ' /tmp ' /proc/mounts
		[ $(stat -c %d /tmp) = $(stat -c %d /etc) ] && echo of the root; echo x > /tmp/x && rm /tmp/x && echo written`
	for name, c := range map[string]struct {
		readonly, layer bool
		want            string
	}{
		"on the host": {false, false, "1777 5 6\n0\nof the root\nwritten\n"}, "layered": {false, true, "1777 5 6\n0\nof the root\nwritten\n"},
		"on the host, read-only": {true, false, "1777 5 6\n0\nof the root\n"}, "layered, read-only": {true, true, "1777 5 6\n0\nof the root\n"},
	} {
		root, file := newRootfs(t), layerFile(t)
		tmp := filepath.Join(root, "tmp")
		if err := errors.Join(os.Chown(tmp, 5, 6), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
			t.Fatal(err)
		}
		spec, w := shell(root, look), engine.Writes{}
		spec.Root.Readonly = c.readonly
		if c.layer {
			w.Layers = map[string]engine.Layer{"/": {File: file}}
		}
		run := p.layered(spec, w)
		out, _ := p.finish(run)
		if !strings.HasPrefix(out, c.want) || strings.Contains(out, "written") == c.readonly {
			t.Errorf("%s: output %q, want %q", name, out, c.want)
		}
		// An image without the directory has none, as on Linux.
		if err := os.Remove(tmp); err != nil {
			t.Fatal(err)
		}
		spec = shell(root, "ls -d /tmp")
		spec.Root.Readonly = c.readonly
		if out, code := p.finish(p.layered(spec, w)); code == 0 {
			t.Errorf("%s: there is a %s", name, out)
		}
	}
}

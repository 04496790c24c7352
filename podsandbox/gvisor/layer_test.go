package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// layered starts a container whose root file system has a layer.
func (p *pod) layered(spec *specs.Spec, w engine.Writes) *running {
	p.t.Helper()
	c, out := newContainer(p.t, spec)
	c.Writes = w
	if err := p.Create(testContext(p.t), c.Container); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Start(testContext(p.t), c.Container); err != nil {
		p.t.Fatal(err)
	}
	out.Close()
	return c
}

func (p *pod) finish(c *running) (string, int) {
	p.t.Helper()
	st, err := p.Wait(testContext(p.t), c.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.Destroy(testContext(p.t), c.ID); err != nil {
		p.t.Fatal(err)
	}
	<-c.eof
	return c.String(), st.Code
}

func layerFile(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func blocks(t testing.TB, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// snapshot lists a tree with all that a change would change.
func snapshot(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(path + " " + fi.Mode().String() + " " + fi.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Whatever a container makes of its root file system, the host sees nothing of it,
// and what it takes of the disk is in one file.
func TestLayerOfTheRootIsNotOnTheHost(t *testing.T) {
	p := startPod(t)
	root, file := newRootfs(t), layerFile(t)
	before := snapshot(t, root)
	c := p.layered(shell(root, `
		cp /bin/busybox /suid; chmod 4755 /suid; mkfifo /fifo; mknod /dev1 c 1 3; ln /suid /bin/hard; ln -s / /link
		rm /etc/group; echo changed > /etc/passwd; chmod 700 /etc; mkdir -p /a/b/c; mv /a /b
		dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null
		su() { :; }; ls -l /suid /fifo; cat /etc/passwd; ls /b; ls /etc; stat -c %h /bin/hard; echo made; sleep 1000`),
		engine.Writes{Layers: map[string]engine.Layer{"/": {File: file}}})
	c.waitFor(t, "made")
	if after := snapshot(t, root); after != before {
		t.Errorf("the host's files have changed:\n%s\nand were\n%s", after, before)
	}
	if n := blocks(t, file); n < 20<<20 || n > 40<<20 {
		t.Errorf("the layer has %d bytes", n)
	}
	out := c.String()
	for _, want := range []string{"-rwsr-xr-x", "prw-", "changed\n", "b\n", "\n2\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	if strings.Contains(out, "group") {
		t.Errorf("a removed file is there:\n%s", out)
	}
	if err := p.Destroy(testContext(t), c.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if n := blocks(t, file); n != 0 {
			return os.ErrExist
		}
		return nil
	})
}

func TestLayerHasALimit(t *testing.T) {
	p := startPod(t)
	c := p.layered(shell(newRootfs(t), `
		dd if=/dev/zero of=/big bs=1M count=20; df -k / | tail -1; df -i / | tail -1; rm /big
		i=0; while [ $i -lt 200 ]; do echo > /f$i || { echo no inode after $i; break; }; i=$((i+1)); done; true`),
		engine.Writes{Layers: map[string]engine.Layer{"/": {File: layerFile(t), Bytes: 8 << 20, Inodes: 100}}})
	out, _ := p.finish(c)
	for _, want := range []string{"No space left on device", " 8192 ", " 100 ", "no inode after"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

func TestSeed(t *testing.T) {
	p := startPod(t)
	for _, readonly := range []bool{false, true} {
		root := newRootfs(t)
		for _, err := range []error{
			os.Symlink("../run/none/resolv.conf", filepath.Join(root, "etc/resolv.conf")),
			os.Symlink("run", filepath.Join(root, "var")), os.Chmod(filepath.Join(root, "etc"), 0o750),
			os.Chown(filepath.Join(root, "etc"), 7, 8),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		spec := shell(root, `cat /etc/hosts /etc/resolv.conf /run/deep/er/x; stat -c '%a %u %g' /etc /run/deep/er /data /etc/hosts
			ls -d /etc/passwd /bin/sh; echo x > /etc/hosts || echo read-only; echo x > /data/x && cat /data/x`)
		spec.Root.Readonly = readonly
		layer := engine.Layer{}
		if !readonly {
			layer.File = layerFile(t)
		}
		c := p.layered(spec, engine.Writes{
			Layers: map[string]engine.Layer{"/": layer},
			Seed: []engine.SeedEntry{
				{Path: "/etc/hosts", Mode: 0o644, Content: []byte("the hosts\n")},
				{Path: "/etc/resolv.conf", Mode: 0o600, Content: []byte("the resolver\n")},
				{Path: "/var/deep/er/x", Mode: 0o644, Content: []byte("through a link\n")},
				{Path: "/data", Mode: os.ModeDir | 0o755}, {Path: "/bin", Mode: os.ModeDir | 0o700},
			},
		})
		out, _ := p.finish(c)
		for _, want := range []string{"the hosts\nthe resolver\nthrough a link\n", "750 7 8\n755 0 0\n755 0 0\n644 0 0\n", "/bin/sh\n/etc/passwd\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("read-only %t: no %q in the output:\n%s", readonly, want, out)
			}
		}
		if strings.Contains(out, "read-only\n") != readonly {
			t.Errorf("read-only %t: output %q", readonly, out)
		}
	}
}

// A read-only root gets the mount points that it lacks.
func TestSeedHasMountPointsOfAReadOnlyRoot(t *testing.T) {
	p := startPod(t)
	root, dir := newRootfs(t), t.TempDir()
	for _, name := range []string{"proc", "sys", "dev", "tmp", "run"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere/yet", filepath.Join(root, "run")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, `cat /run/f /made/file/deep /vol/file /vol/sub/file; ls /proc/self/status /dev/null; echo > /x || echo read-only`)
	spec.Root.Readonly = true
	for source, destination := range map[string]string{"f": "/run/f", "d": "/made/file/deep", "v": "/vol", "s": "/vol/sub"} {
		from := file
		if source == "v" || source == "s" {
			from = dir
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: from, Options: []string{"rbind", "ro"}})
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil { // as on Linux: nobody makes it in a volume that is only read
		t.Fatal(err)
	}
	c := p.layered(spec, engine.Writes{Layers: map[string]engine.Layer{"/": {}}})
	out, _ := p.finish(c)
	if want := strings.Repeat("of the host\n", 4) + "/dev/null\n/proc/self/status\n"; !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "read-only\n") {
		t.Errorf("output %q", out)
	}
}

// A directory of a read-only root may have a layer of its own, as volumes of images do.
func TestLayerOfAMount(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "old"), []byte("of the image\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, `cat /data/old; echo new > /data/old && cat /data/old; stat -c %a /data; echo > /x || echo read-only`)
	spec.Root.Readonly = true
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: data, Options: []string{"rbind", "rw"}})
	c := p.layered(spec, engine.Writes{Layers: map[string]engine.Layer{"/": {}, "/data": {File: layerFile(t)}}})
	out, _ := p.finish(c)
	if out != "of the image\nnew\n750\n/bin/sh: can't create /x: Read-only file system\nread-only\n" {
		t.Errorf("output %q", out)
	}
	if b, _ := os.ReadFile(filepath.Join(data, "old")); string(b) != "of the image\n" {
		t.Errorf("the image has %q", b)
	}
}

// The files that a container makes are counted, by whoever asks.
func TestInodesOfALayer(t *testing.T) {
	p := startPod(t)
	start := func(script string) *running {
		c := p.layered(shell(newRootfs(t), script+"; echo made; sleep 1000"), engine.Writes{Layers: map[string]engine.Layer{"/": {File: layerFile(t)}}})
		c.waitFor(t, "made")
		return c
	}
	few, many := start("true"), start("i=0; while [ $i -lt 300 ]; do echo > /f$i; i=$((i+1)); done")
	got, err := p.Inodes(testContext(t), []string{few.ID, "unknown", many.ID})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[few.ID] == 0 || got[few.ID] > 10 || got[many.ID] != got[few.ID]+300 {
		t.Errorf("counted %v", got)
	}
	if got, err := p.Inodes(testContext(t), nil); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

// What is mounted through a link of the image is mounted on what the link leads to,
// after what is mounted there.
func TestSeedOfMountsThroughLinks(t *testing.T) {
	p := startPod(t)
	root, dir := newRootfs(t), t.TempDir()
	if err := os.Symlink("/data/deep/er", filepath.Join(root, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("found\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, "cat /data/deep/er/s/file /l/s/file")
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/l/s", Type: "bind", Source: dir, Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/data/deep/er", Type: "tmpfs", Source: "tmpfs"})
	c := p.layered(spec, engine.Writes{Layers: map[string]engine.Layer{"/": {File: layerFile(t)}}})
	if out, _ := p.finish(c); out != "found\nfound\n" {
		t.Errorf("output %q", out)
	}
}

// A seed that wants two things at one place is refused, and no archive of it reaches
// the Sentry.
func TestSeedOfTwoKinds(t *testing.T) {
	file := func(p string) engine.SeedEntry { return engine.SeedEntry{Path: p, Mode: 0o644} }
	dir := func(p string) engine.SeedEntry { return engine.SeedEntry{Path: p, Mode: os.ModeDir | 0o755} }
	for name, tc := range map[string]struct {
		seed []engine.SeedEntry
		good bool
	}{
		"file and directory": {[]engine.SeedEntry{file("/etc/hosts"), dir("/etc/hosts")}, false},
		"directory and file": {[]engine.SeedEntry{dir("/new"), file("/new")}, false},
		"below a file":       {[]engine.SeedEntry{file("/etc/hosts"), dir("/etc/hosts/x/y")}, false},
		"a file twice":       {[]engine.SeedEntry{file("/etc/hosts"), file("/etc/hosts")}, false},
		"a directory twice":  {[]engine.SeedEntry{dir("/new"), dir("/new"), dir("/new/x")}, true},
		"side by side":       {[]engine.SeedEntry{file("/etc/hosts"), dir("/etc/hosts.d")}, true},
		"through the root":   {[]engine.SeedEntry{file("/")}, false},
	} {
		p := &preparedSpec{spec: shell(newRootfs(t), "true"), seed: tc.seed, layers: map[string]engine.Layer{"/": {}}}
		f, err := p.seedFile()
		if f != nil {
			f.Close()
		}
		if (err == nil) != tc.good || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func rbind(source, destination, access string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", access, "rprivate"}}
}

// named is a directory with a file of that name.
func named(t *testing.T, name string, directories ...string) string {
	t.Helper()
	dir := t.TempDir()
	errs := []error{os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o644), os.Chmod(dir, 0o755)}
	for _, f := range directories {
		errs = append(errs, os.MkdirAll(filepath.Join(dir, f), 0o755))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What is asked for is what is there, on whatever we and others put at its place, with
// what belongs below it.
func TestOrderPutsWhatIsAskedForOnTop(t *testing.T) {
	p := startPod(t)
	for name, c := range map[string]struct {
		mounts       []specs.Mount
		masked       []string
		script, want string
	}{
		"the cgroup":         {[]specs.Mount{rbind(named(t, "mine"), "/sys/fs/cgroup", "ro")}, nil, "ls /sys/fs/cgroup; ls -d /sys/devices", "mine\n/sys/devices\n"},
		"all of /sys":        {[]specs.Mount{rbind(named(t, "mine", "fs/cgroup"), "/sys", "ro")}, nil, "ls /sys /sys/fs/cgroup", "/sys:\nfs\nmine\n\n/sys/fs/cgroup:\n"},
		"below the cgroup":   {[]specs.Mount{rbind(named(t, "mine", "x"), "/sys/fs/cgroup", "ro"), rbind(named(t, "sub"), "/sys/fs/cgroup/x", "ro")}, nil, "ls /sys/fs/cgroup /sys/fs/cgroup/x", "/sys/fs/cgroup:\nmine\nx\n\n/sys/fs/cgroup/x:\nsub\n"},
		"shared memory":      {[]specs.Mount{rbind(named(t, "mine"), "/dev/shm", "rw")}, nil, "ls /dev/shm; ls /dev/null", "mine\n/dev/null\n"},
		"a mask of its":      {[]specs.Mount{rbind(named(t, "mine", "firmware/x"), "/sys", "ro")}, []string{"/sys/firmware"}, "ls /sys /sys/firmware", "/sys:\nfirmware\nmine\n\n/sys/firmware:\n"},
		"masks in masks":     {nil, []string{"/sys/devices", "/sys/devices/virtual"}, "ls /sys/devices", ""},
		"through a link":     {[]specs.Mount{rbind(named(t, "first"), "/run/x", "ro"), rbind(named(t, "second"), "/var/run/x", "ro")}, nil, "ls /run/x", "second\n"},
		"and back":           {[]specs.Mount{rbind(named(t, "first"), "/var/run/x", "ro"), rbind(named(t, "second"), "/run/x", "ro")}, nil, "ls /run/x", "second\n"},
		"below through one":  {[]specs.Mount{rbind(named(t, "sub"), "/var/run/x/y", "ro"), rbind(named(t, "first", "y"), "/run/x", "ro"), rbind(named(t, "second", "y"), "/var/run/x", "ro")}, nil, "ls /run/x /run/x/y", "/run/x:\nsecond\ny\n\n/run/x/y:\nsub\n"},
		"the cgroup's link":  {[]specs.Mount{rbind(named(t, "mine"), "/cg", "ro")}, nil, "ls /sys/fs/cgroup", "mine\n"},
		"an empty /tmp":      {[]specs.Mount{rbind(t.TempDir(), "/tmp", "ro"), rbind(t.TempDir(), "/var/run/a/very/long/path", "ro")}, nil, "echo x > /tmp/x || grep -c ' /tmp ' /proc/mounts", "/bin/sh: can't create /tmp/x: Read-only file system\n1\n"},
		"the same, by links": {[]specs.Mount{rbind(named(t, "mine"), "/t", "ro"), rbind(named(t, "other"), "/tmp", "ro")}, nil, "ls /tmp", "other\n"},
	} {
		for _, readonly := range []bool{false, true} {
			root := newRootfs(t)
			if err := errors.Join(os.Mkdir(filepath.Join(root, "var"), 0o755), os.Symlink("/run", filepath.Join(root, "var/run")),
				os.Symlink("../sys/fs/cgroup", filepath.Join(root, "cg")), os.Symlink("tmp", filepath.Join(root, "t"))); err != nil {
				t.Fatal(err)
			}
			spec := shell(root, c.script)
			spec.Root.Readonly = readonly
			asked := func(m specs.Mount) bool {
				return slices.ContainsFunc(c.mounts, func(o specs.Mount) bool { return o.Destination == m.Destination })
			}
			spec.Mounts = append(slices.DeleteFunc(spec.Mounts, asked), c.mounts...)
			spec.Linux.MaskedPaths = c.masked
			run := p.layered(spec, engine.Writes{Layers: map[string]engine.Layer{"/": {}}})
			if out, _ := p.finish(run); out != c.want {
				t.Errorf("%s, read-only %t: output %q, want %q", name, readonly, out, c.want)
			}
		}
	}
}

// What a container uses is known also when its cgroup is covered.
func TestStatsBehindACoveredCgroup(t *testing.T) {
	p := startPod(t)
	for _, at := range []string{"/sys/fs/cgroup", "/sys"} {
		spec := shell(newRootfs(t), "sleep 1000 & echo made; wait")
		spec.Mounts = append(spec.Mounts, rbind(named(t, "mine"), at, "ro"))
		c := p.start(spec)
		c.waitFor(t, "made")
		use, err := p.Stats(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if u := use[c.ID]; u.Pids != 2 || u.CPU == 0 || u.MemoryBytes == 0 {
			t.Errorf("at %s: it uses %+v", at, u)
		}
	}
}

// A layer is the mount's that it was made for, and no volume that lies at its place.
func TestLayerIsOfNoOtherMount(t *testing.T) {
	p := startPod(t)
	root, volume := newRootfs(t), named(t, "old")
	if err := errors.Join(os.Mkdir(filepath.Join(root, "data"), 0o755), os.Symlink("data", filepath.Join(root, "alias"))); err != nil {
		t.Fatal(err)
	}
	spec := shell(root, "echo kept > /data/new; ls /data")
	spec.Mounts = append(spec.Mounts, rbind(filepath.Join(root, "data"), "/data", "rw"), rbind(volume, "/alias", "rw"))
	c := p.layered(spec, engine.Writes{Layers: map[string]engine.Layer{"/": {}, "/data": {}}})
	if out, _ := p.finish(c); out != "new\nold\n" {
		t.Errorf("output %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(volume, "new")); string(b) != "kept\n" {
		t.Errorf("the volume has %q, %v", b, err)
	}
}

// What the Sentry serves by itself is not given up for a link of an image.
func TestOrderRefusesTheSentrysPlaces(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	for name, target := range map[string]string{"p": "/proc", "s": "proc/sys", "d": "../dev", "r": "/"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, destination := range []string{"/p", "/p/self", "/s", "/s/net", "/d", "/d/pts", "/r", "/proc", "/"} {
		spec := shell(root, "true")
		spec.Mounts = append(spec.Mounts, rbind(named(t, "mine"), destination, "ro"))
		if err := p.Create(testContext(t), engine.Container{ID: newID(t), Spec: spec}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("at %s: %v", destination, err)
		}
	}
}

// The Sentry makes mounts by the lengths of their destinations.
func TestHoldKeepsTheOrder(t *testing.T) {
	var mounts []specs.Mount
	for _, d := range []string{"/proc", "/dev", "/sys", "/dev/pts", "/a/long/one", "/b", "/b/c", "/a/x/y/z/12", "/b/c/d/e/f/g", "/a/x/y/z/12"} {
		mounts = append(mounts, specs.Mount{Destination: d})
	}
	want := slices.Clone(mounts)
	hold(mounts)
	for i, m := range mounts {
		if filepath.Clean(m.Destination) != want[i].Destination {
			t.Errorf("%s has become %s", want[i].Destination, m.Destination)
		}
		for _, before := range mounts[:i] {
			a, b := filepath.Clean(before.Destination), filepath.Clean(m.Destination)
			related := within(a, b) || within(b, a)
			if len(before.Destination) > len(m.Destination) || related && len(before.Destination) == len(m.Destination) {
				t.Errorf("%q is not made before %q", before.Destination, m.Destination)
			}
		}
	}
	if last := mounts[3].Destination; strings.HasPrefix(last, "//") {
		t.Errorf("%q is longer than it need be", last)
	}
}

// A volume that can be written to stays one below a parent that cannot be, recursively
// or with mapped ids, and whether or not the parent has a directory to mount it on.
func TestOrderOfAWritableVolumeBelowAReadOnlyOne(t *testing.T) {
	all := []specs.LinuxIDMapping{{HostID: 70000, Size: 65536}}
	for _, ids := range []idmap.Mapping{{}, {UIDs: all, GIDs: all}} {
		p := startPod(t, func(c *engine.Config) { c.IDs = ids })
		for _, access := range []string{"ro", optionReadOnlyBelow} {
			for name, c := range map[string]struct {
				directory bool
				mount     string // of the host, below the parent
			}{"no directory": {}, "a directory": {directory: true}, "a mount": {directory: true, mount: "sub"}} {
				parent, child := named(t, "a"), named(t, "b")
				if c.directory {
					parent = named(t, "a", "sub")
				}
				if c.mount != "" {
					child = filepath.Join(parent, c.mount)
					if err := unix.Mount("tmpfs", child, "tmpfs", 0, ""); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = unix.Unmount(child, unix.MNT_DETACH) })
				}
				spec := shell(newRootfs(t), "echo x > /vol/x || echo parent is read-only; echo x > /vol/sub/y && echo child is not")
				mounts := []specs.Mount{rbind(parent, "/vol", access), rbind(child, "/vol/sub", "rw")}
				for i := range mounts {
					mounts[i].UIDMappings, mounts[i].GIDMappings = ids.UIDs, ids.GIDs
				}
				spec.Mounts = append(spec.Mounts, mounts...)
				if out, _ := p.run(spec); !strings.HasSuffix(out, "parent is read-only\nchild is not\n") {
					t.Errorf("%s, %s, mapped %t: %q", access, name, !ids.IsZero(), out)
				}
			}
		}
	}
}

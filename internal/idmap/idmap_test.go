package idmap

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func shifted(host, size uint32) Mapping {
	r := []specs.LinuxIDMapping{{HostID: host, Size: size}}
	return Mapping{UIDs: r, GIDs: r}
}

func TestToHost(t *testing.T) {
	m := Mapping{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 100, HostID: 5000, Size: 1}},
		GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 200}},
	}
	for _, c := range []struct {
		uid, gid, hostUID, hostGID uint32
		ok                         bool
	}{
		{0, 0, 1000, 2000, true}, {9, 199, 1009, 2199, true}, {100, 7, 5000, 2007, true},
		{10, 0, 0, 2000, false}, {0, 200, 1000, 0, false},
	} {
		uid, gid, ok := m.ToHost(c.uid, c.gid)
		if ok != c.ok || uid != c.hostUID || gid != c.hostGID {
			t.Errorf("%d:%d is %d:%d (%v) on the host", c.uid, c.gid, uid, gid, ok)
		}
	}
	if uid, gid, ok := (Mapping{}).ToHost(7, 8); uid != 7 || gid != 8 || !ok {
		t.Errorf("without a mapping 7:8 is %d:%d (%v)", uid, gid, ok)
	}
	if !Identity().IsIdentity() || m.IsIdentity() || (Mapping{}).IsIdentity() || Identity().IsZero() || !(Mapping{}).IsZero() {
		t.Error("identity and no mapping are mistaken")
	}
}

func TestUserNamespace(t *testing.T) {
	needRoot(t)
	ns, err := UserNamespace(shifted(70000, 10))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if got, _ := os.Readlink("/proc/self/ns/user"); got == "" {
		t.Fatal("no user namespaces")
	}
	var own, made unix.Stat_t
	if unix.Stat("/proc/self/ns/user", &own) != nil || unix.Fstat(int(ns.Fd()), &made) != nil || own.Ino == made.Ino {
		t.Error("it is the own namespace")
	}
	overlap := shifted(70000, 10)
	overlap.UIDs = append(overlap.UIDs, overlap.UIDs...)
	if _, err := UserNamespace(overlap); !errdefs.IsInvalidArgument(err) {
		t.Errorf("overlapping ranges: %v, want InvalidArgument", err)
	}
}

func TestOpenTreeIsMapped(t *testing.T) {
	needRoot(t)
	ns, err := UserNamespace(shifted(70000, 2000))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	for name, id := range map[string]int{"root": 0, "app": 1000, "outside": 5000} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), id, id); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(dir, Attributes{UserNS: ns})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for name, want := range map[string]uint32{"root": 70000, "app": 71000, "outside": 65534} {
		var st unix.Stat_t
		if err := unix.Fstatat(int(tree.Fd()), name, &st, 0); err != nil || st.Uid != want || st.Gid != want {
			t.Errorf("%s belongs to %d:%d (%v), want %d", name, st.Uid, st.Gid, err, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "root")); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error("the original has changed")
	}
	if _, err := OpenTree("/proc", Attributes{UserNS: ns}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a file system that cannot be mapped: %v, want FailedPrecondition", err)
	}
}

func TestOpenTreeIsReadOnlyWithAllBelow(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(sub, unix.MNT_DETACH) })
	tree, err := OpenTree(dir, Attributes{Recursive: true, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, name := range []string{"x", "sub/x"} {
		if err := unix.Mkdirat(int(tree.Fd()), name, 0o755); err != unix.EROFS {
			t.Errorf("mkdir %s: %v, want EROFS", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(sub, "y"), nil, 0o600); err != nil {
		t.Errorf("the original has changed: %v", err)
	}
}

func TestProbe(t *testing.T) {
	needRoot(t)
	if err := Probe(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := ProbeReadOnly(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := Probe("/proc"); err == nil {
		t.Error("/proc is said to take a mapping")
	}
}

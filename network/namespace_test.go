package network

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestCreateNamespacePinsItWithLoopbackUp(t *testing.T) {
	path := newNamespace(t)
	if !namespaceExists(path) {
		t.Fatal("namespace is not there")
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		up := link.Attrs().RawFlags&unix.IFF_UP != 0
		if name := link.Attrs().Name; up != (name == "lo") {
			t.Errorf("interface %s: up is %v", name, up)
		}
	}
	addrs, err := handle.AddrList(links[0], netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) != 1 || !addrs[0].IP.IsLoopback() {
		t.Errorf("loopback has %v", addrs)
	}
}

func TestCreateNamespaceLeavesTheCallerWhereItWas(t *testing.T) {
	needsRoot(t)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	newNamespace(t)
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if now, err := os.Readlink(task); err == nil && now != before {
			t.Errorf("%s is %s, not %s", task, now, before)
		}
	}
}

func TestCreateNamespaceCanBeRepeated(t *testing.T) {
	path := newNamespace(t)
	var before, after unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	if err := CreateNamespace(path); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(path, &after); err != nil {
		t.Fatal(err)
	}
	if before.Ino != after.Ino {
		t.Error("the second call made another namespace")
	}
	if n := mounted(t, path); n != 1 {
		t.Errorf("mounted %d times", n)
	}
}

func TestCreateNamespaceOverLeftovers(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()

	t.Run("empty file of a reboot", func(t *testing.T) {
		path := filepath.Join(dir, "stale")
		if err := os.WriteFile(path, nil, 0o444); err != nil {
			t.Fatal(err)
		}
		if namespaceExists(path) {
			t.Fatal("an empty file counts as a namespace")
		}
		if err := CreateNamespace(path); err != nil {
			t.Fatal(err)
		}
		if err := RemoveNamespace(path); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("somebody's file", func(t *testing.T) {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CreateNamespace(path); !errdefs.IsAlreadyExists(err) {
			t.Errorf("create: %v", err)
		}
		if err := RemoveNamespace(path); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("remove: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
			t.Errorf("the file is now %q, %v", got, err)
		}
	})
	t.Run("symbolic link", func(t *testing.T) {
		path := filepath.Join(dir, "link")
		if err := os.Symlink("elsewhere", path); err != nil {
			t.Fatal(err)
		}
		if err := CreateNamespace(path); err == nil {
			t.Error("a symbolic link was followed")
		}
	})
	t.Run("another mount", func(t *testing.T) {
		path := filepath.Join(dir, "mount")
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("test", path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(path, 0)
		if err := RemoveNamespace(path); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("remove: %v", err)
		}
		if mounted(t, path) != 1 {
			t.Error("a mount that is no namespace was taken away")
		}
	})
}

func TestRemoveNamespace(t *testing.T) {
	needsRoot(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := CreateNamespace(path); err != nil {
		t.Fatal(err)
	}
	// As two daemons that raced would leave it.
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveNamespace(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Fatalf("the file is still there: %v", err)
		}
	}
	if err := RemoveNamespace(filepath.Join(path, "no", "such", "directory")); err != nil {
		t.Error(err)
	}
}

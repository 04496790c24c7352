package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// privateVerb makes this program the first one in the kubelet's mount namespace.
// Its arguments are the kubelet's root folder and the kubelet's command line.
const privateVerb = "in-private-mounts"

// tunables are what a kubelet sets on its node (unless it is told to refuse to
// start where they differ).
var tunables = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// execPrivate becomes the kubelet. The caller gave this process a mount namespace
// of its own. All mounts become private in it but those of the root folder: what
// the kubelet mounts for volumes has to reach the daemon, and the covers over the
// node's own folders must reach nobody. It returns only on an error.
func execPrivate(root string, command []string) error {
	if err := makeOthersPrivate(root); err != nil {
		return err
	}
	for _, dir := range []string{"/var/lib", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("cover %s: %w", dir, err)
		}
	}
	for _, name := range tunables {
		if err := coverFile(filepath.Join("/proc/sys", name)); err != nil {
			return err
		}
	}
	err := syscall.Exec(command[0], command, os.Environ())
	return fmt.Errorf("exec %s: %w", command[0], err)
}

func makeOthersPrivate(root string) error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, m := range mounts {
		path := m.Mountpoint
		if path == root || strings.HasPrefix(path, root+"/") {
			continue
		}
		err := unix.Mount("", path, "", unix.MS_PRIVATE, "")
		// A mount that lies under another one cannot be named, nor be hit.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("make mount %s private: %w", path, err)
		}
	}
	return nil
}

// coverFile puts a file with the same content over a file.
func coverFile(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	cover := filepath.Join("/var/lib", strings.ReplaceAll(path, "/", "_"))
	if err := os.WriteFile(cover, b, 0o644); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	if err := unix.Mount(cover, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return nil
}

// nodesOwn describes what the covers protect: whether there are the kubelet's
// folders on the node, links to logs of this kubelet's pods in them, and the values
// of the tunables.
func nodesOwn() string {
	var text strings.Builder
	for _, dir := range []string{"/var/lib/kubelet", "/var/log/containers", "/var/log/pods"} {
		_, err := os.Stat(dir)
		links, _ := filepath.Glob(filepath.Join(dir, "*-"+nodeName+"_default_*"))
		fmt.Fprintf(&text, "%s: absent %v, links %q\n", dir, errors.Is(err, os.ErrNotExist), links)
	}
	for _, name := range tunables {
		b, _ := os.ReadFile(filepath.Join("/proc/sys", name)) // empty when the kernel lacks it
		fmt.Fprintf(&text, "%s: %s", name, b)
	}
	return text.String()
}

package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
)

// inode names a file across mount namespaces: a sandbox process lives in a
// chroot, where the path of its program reads differently.
type inode struct{ dev, ino uint64 }

func inodeOf(path string) (inode, bool) {
	fi, err := os.Stat(path)
	if err != nil {
		return inode{}, false
	}
	st := fi.Sys().(*syscall.Stat_t)
	return inode{st.Dev, st.Ino}, true
}

// staged returns the programs that the daemon staged in its root folder.
func (e *Env) staged() map[inode]bool {
	m := map[inode]bool{}
	dir := filepath.Join(e.Root, "bin")
	entries, _ := os.ReadDir(dir) // none before the first start
	for _, en := range entries {
		if i, ok := inodeOf(filepath.Join(dir, en.Name())); ok {
			m[i] = true
		}
	}
	return m
}

func (e *Env) processes() ([]string, error) {
	pids, err := e.pids()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, pid := range pids {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		out = append(out, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte(" "))))
	}
	return out, nil
}

// pids lists the environment's processes other than the daemon and this one.
func (e *Env) pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	staged := e.staged()
	var out []int
	for _, en := range entries {
		pid, err := strconv.Atoi(en.Name())
		if err != nil || pid == os.Getpid() || pid == e.DaemonPID() {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(cmdline) == 0 { // gone, a zombie, or the kernel's own
			continue
		}
		i, ok := inodeOf(fmt.Sprintf("/proc/%d/exe", pid))
		if ok && staged[i] || bytes.Contains(cmdline, []byte(e.Dir+"/")) {
			out = append(out, pid)
		}
	}
	return out, nil
}

func (e *Env) mounts() ([]string, error) { return MountsBelow(e.Dir) }

// MountsBelow lists mount points in the order of mounting.
func MountsBelow(dir string) ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if strings.HasPrefix(m.Mountpoint, dir+"/") {
			out = append(out, m.Mountpoint)
		}
	}
	return out, nil
}

func (e *Env) links() ([]string, error) {
	br, err := netlink.LinkByName(e.Name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := whole(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range all {
		if l.Attrs().MasterIndex == br.Attrs().Index {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}

func (e *Env) leases() ([]string, error) {
	var out []string
	err := filepath.WalkDir(e.LeaseDir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := netip.ParseAddr(d.Name()); err == nil && !d.IsDir() {
			out = append(out, d.Name())
		}
		return nil
	})
	return out, err
}

// cgroups lists the folders below the environment's parent in every hierarchy,
// and those anywhere below the daemon's default parent that carry a known id.
func (e *Env) cgroups() ([]string, error) {
	ids := []string{}
	if e.Client != nil {
		ids = e.Client.IDs()
	}
	var out []string
	for _, parent := range []string{e.CgroupParent, "/cri-sandbox"} {
		all, err := Cgroups(parent)
		if err != nil {
			return nil, err
		}
		for _, path := range all {
			name := filepath.Base(path)
			known := slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(name, id) })
			if known || parent == e.CgroupParent && name != filepath.Base(parent) {
				out = append(out, path)
			}
		}
	}
	return out, nil
}

func cgroupRoots() ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if m.FSType == "cgroup" || m.FSType == "cgroup2" {
			out = append(out, m.Mountpoint)
		}
	}
	return out, nil
}

// idLike is a folder's name that carries the id of a pod or a container. Other
// folders are the daemon's fixed layout, which it may make when first needed.
var idLike = regexp.MustCompile(`[0-9a-f]{12}`)

// files lists all below dir that is not a plain folder, and the folders named by
// an id. Top-level entries named in skip are left out. Of another file system that
// is mounted below dir, such as a container's root, only the mount point counts.
func files(dir string, skip ...string) ([]string, error) {
	var out []string
	home, ok := inodeOf(dir)
	if !ok {
		return nil, nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we look
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if slices.Contains(skip, rel) {
			return filepath.SkipDir
		}
		if d.IsDir() {
			if i, ok := inodeOf(path); ok && i.dev != home.dev {
				out = append(out, path)
				return filepath.SkipDir
			}
			if !idLike.MatchString(d.Name()) {
				return nil
			}
		}
		out = append(out, path)
		return nil
	})
	return out, err
}

// layers lists the writable layers of containers and the snapshots of images: the
// entries of every folder called rootfs, trash or snapshots in the image store.
func (e *Env) layers() ([]string, error) {
	var out []string
	top := filepath.Join(e.Root, "images")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if n := d.Name(); n != "rootfs" && n != "snapshots" && n != "trash" {
			return nil
		}
		entries, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, en := range entries {
			out = append(out, filepath.Join(path, en.Name()))
		}
		return filepath.SkipDir // what a layer contains is the image's
	})
	return out, err
}

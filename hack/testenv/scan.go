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

// footprint is what belongs to a node on the machine, found by looking at the machine.
type footprint struct {
	layout   Layout
	daemon   *Daemon
	client   *Client
	firewall firewall
}

// scans says how each kind is found. A process is one of the staged sandbox
// program or with the environment's directory among its arguments, other than the
// daemon. A mount lies below the environment's directory, pinned network namespaces
// among them. A link is attached to the bridge. A lease is an address file of
// host-local. A rule (iptables, ip6tables, nftables) mentions the network, the
// bridge or an address of its subnets; a chain is one of iptables that the plugins
// made for a pod of the environment and that no rule belongs to. A cgroup is below
// the environment's parent or carries an id that the client has seen. state and
// record are files and directories in the daemon's --state and --root (less its
// images); rootfs are the writable layers and snapshots.
func (p *footprint) scans() map[string]func() ([]string, error) {
	return map[string]func() ([]string, error){
		"process": p.processes,
		"mount":   p.mounts,
		"link":    p.links,
		"lease":   p.leases,
		"rule":    p.firewall.rules,
		"chain":   p.firewall.orphanChains,
		"cgroup":  p.cgroups,
		"state":   func() ([]string, error) { return files(p.layout.State) },
		"record":  func() ([]string, error) { return files(p.layout.Root, "images") },
		"rootfs":  p.layers,
	}
}

// observe looks at everything now.
func (p *footprint) observe() (Observation, error) {
	o := Observation{}
	for kind, scan := range p.scans() {
		items, err := scan()
		if err != nil {
			return nil, fmt.Errorf("observe %s: %w", kind, err)
		}
		slices.Sort(items)
		o[kind] = items
	}
	return o, nil
}

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

// staged returns the programs that the daemon staged in its root directory.
func (p *footprint) staged() map[inode]bool {
	m := map[inode]bool{}
	dir := filepath.Join(p.layout.Root, "bin")
	entries, _ := os.ReadDir(dir) // none before the first start
	for _, en := range entries {
		if i, ok := inodeOf(filepath.Join(dir, en.Name())); ok {
			m[i] = true
		}
	}
	return m
}

func (p *footprint) processes() ([]string, error) {
	pids, err := p.pids()
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
func (p *footprint) pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	staged := p.staged()
	var out []int
	for _, en := range entries {
		pid, err := strconv.Atoi(en.Name())
		if err != nil || pid == os.Getpid() || pid == p.daemon.PID() {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(cmdline) == 0 { // gone, a zombie, or the kernel's own
			continue
		}
		i, ok := inodeOf(fmt.Sprintf("/proc/%d/exe", pid))
		if ok && staged[i] || bytes.Contains(cmdline, []byte(p.layout.Dir+"/")) {
			out = append(out, pid)
		}
	}
	return out, nil
}

func (p *footprint) mounts() ([]string, error) { return MountsBelow(p.layout.Dir) }

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

func (p *footprint) links() ([]string, error) {
	br, err := netlink.LinkByName(p.layout.Name)
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

func (p *footprint) leases() ([]string, error) {
	var out []string
	err := filepath.WalkDir(p.layout.LeaseDir, func(path string, d fs.DirEntry, err error) error {
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

// cgroups lists the directories below the environment's parent in every hierarchy,
// and those anywhere below the daemon's default parent that carry a known id.
func (p *footprint) cgroups() ([]string, error) {
	ids := p.client.IDs()
	var out []string
	for _, parent := range []string{p.layout.CgroupParent, "/cri-sandbox"} {
		all, err := Cgroups(parent)
		if err != nil {
			return nil, err
		}
		for _, path := range all {
			name := filepath.Base(path)
			known := slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(name, id) })
			if known || parent == p.layout.CgroupParent && name != filepath.Base(parent) {
				out = append(out, path)
			}
		}
	}
	return out, nil
}

// idLike is a directory's name that carries the id of a pod or a container. Other
// directories are the daemon's fixed layout, which it may make when first needed.
var idLike = regexp.MustCompile(`[0-9a-f]{12}`)

// files lists all below dir that is not a plain directory, and the directories named by
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
// entries of every directory called rootfs, trash or snapshots in the image store.
func (p *footprint) layers() ([]string, error) {
	var out []string
	top := filepath.Join(p.layout.Root, "images")
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

package cgroup

import (
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
)

// host is how a node mounts its control groups.
type host struct {
	version int // 0 without any
	systemd bool

	// mounts are the directories of the hierarchies: on v2 one, which has all
	// controllers; on v1 one for each set of controllers.
	mounts []mount
}

// mount is one hierarchy. On v2 controllers is nil.
type mount struct {
	dir         string
	controllers []string
}

func (m mount) has(controller string) bool {
	return m.controllers == nil || slices.Contains(m.controllers, controller)
}

var thisHost = sync.OnceValue(func() *host {
	h := &host{}
	if info, err := os.Lstat("/run/systemd/system"); err == nil {
		h.systemd = info.IsDir()
	}
	switch cgroups.Mode() {
	case cgroups.Unified:
		h.version, h.mounts = 2, []mount{{dir: "/sys/fs/cgroup"}}
	case cgroups.Legacy, cgroups.Hybrid:
		mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
		if h.mounts = hierarchies(mounts); err == nil && len(h.mounts) > 0 {
			h.version = 1
		}
	}
	return h
})

// Mode returns the version of the node's control groups, 1 or 2, or 0 when none
// are mounted, and whether systemd manages them.
func Mode() (version int, systemd bool) {
	h := thisHost()
	return h.version, h.systemd
}

// hierarchies finds the v1 hierarchies among the mounts of that kind, each once.
func hierarchies(all []*mountinfo.Info) (mounts []mount) {
	seen := map[string]bool{}
	for _, m := range all {
		var names []string
		for option := range strings.SplitSeq(m.VFSOptions, ",") {
			if name, named := strings.CutPrefix(option, "name="); named || isController(option) {
				names = append(names, name)
			}
		}
		if key := strings.Join(names, ","); len(names) > 0 && !seen[key] {
			seen[key] = true
			mounts = append(mounts, mount{dir: m.Mountpoint, controllers: names})
		}
	}
	return mounts
}

// isController tells the controllers among a v1 mount's options.
func isController(option string) bool {
	switch option {
	case "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory",
		"misc", "net_cls", "net_prio", "perf_event", "pids", "rdma":
		return true
	}
	return false
}

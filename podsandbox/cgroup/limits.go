package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Limits are those of a pod as a whole. A zero value leaves what is set; where
// the type is signed, -1 takes a limit away.
type Limits struct {
	CPUShares   uint64 // as on v1, 2 to 262144
	CPUQuota    int64  // microseconds of CPU time in each period
	CPUPeriod   uint64 // microseconds
	MemoryBytes int64
	PidsLimit   int64
	CpusetCpus  string // lists like "0-3,8"
	CpusetMems  string

	// Unified are v2 files and their values, written last. On v1 they are
	// refused, as is what does not belong to a controller.
	Unified map[string]string
}

// setting is one control file and its value.
type setting struct{ file, value string }

// takesOff tells whether the value means no limit.
func (s setting) takesOff() bool { return s.value == "-1" || strings.HasPrefix(s.value, "max") }

// Update sets limits. It stops at the first that the kernel refuses.
func (g *Group) Update(l Limits) error {
	settings, err := l.settings(g.host.version)
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", g.path, err)
	}
	for _, s := range settings {
		err := g.set(s)
		if errdefs.IsFailedPrecondition(err) && s.takesOff() && !g.has(s.file) {
			continue // without a controller there is no limit
		}
		if err != nil {
			return fmt.Errorf("update cgroup %s: set %s to %q: %w", g.path, s.file, s.value, err)
		}
	}
	return g.updateScope(l)
}

func (g *Group) set(s setting) error {
	controller, _, _ := strings.Cut(s.file, ".")
	dir := g.dir(controller)
	if dir == "" {
		return fmt.Errorf("controller is not mounted: %w", errdefs.ErrFailedPrecondition)
	}
	return refusal(writeFile(filepath.Join(dir, s.file), s.value))
}

// refusal says whose doing it is that the kernel does not take a value.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	case isGone(err), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err)
	}
	return err
}

func (g *Group) has(file string) bool {
	controller, _, _ := strings.Cut(file, ".")
	dir := g.dir(controller)
	if dir == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}

// settings lists what to write, in an order in which the kernel accepts it.
func (l Limits) settings(version int) (list []setting, err error) {
	add := func(file string, wanted bool, value string) {
		if wanted {
			list = append(list, setting{file, value})
		}
	}
	add("cpuset.cpus", l.CpusetCpus != "", l.CpusetCpus)
	add("cpuset.mems", l.CpusetMems != "", l.CpusetMems)
	if version == 1 {
		if len(l.Unified) > 0 {
			return nil, fmt.Errorf("unified settings on cgroup v1: %w", errdefs.ErrInvalidArgument)
		}
		add("cpu.shares", l.CPUShares > 0, strconv.FormatUint(l.CPUShares, 10))
		// A shorter period is refused while the old quota exceeds the parent's
		// share of it: without a quota, each order works.
		add("cpu.cfs_quota_us", l.CPUPeriod > 0 && l.CPUQuota > 0, "-1")
		add("cpu.cfs_period_us", l.CPUPeriod > 0, strconv.FormatUint(l.CPUPeriod, 10))
		add("cpu.cfs_quota_us", l.CPUQuota != 0, strconv.FormatInt(l.CPUQuota, 10))
		add("memory.limit_in_bytes", l.MemoryBytes != 0, strconv.FormatInt(l.MemoryBytes, 10))
		add("pids.max", l.PidsLimit != 0, orMax(l.PidsLimit))
		return list, nil
	}
	add("cpu.weight", l.CPUShares > 0, strconv.FormatUint(cgroup2.ConvertCPUSharesToCgroupV2Value(l.CPUShares), 10))
	if l.CPUQuota != 0 {
		value := orMax(l.CPUQuota)
		if l.CPUPeriod > 0 {
			value += " " + strconv.FormatUint(l.CPUPeriod, 10)
		}
		add("cpu.max", true, value)
	}
	add("memory.max", l.MemoryBytes != 0, orMax(l.MemoryBytes))
	add("pids.max", l.PidsLimit != 0, orMax(l.PidsLimit))
	for _, file := range slices.Sorted(maps.Keys(l.Unified)) {
		// Files of the core could move processes or kill them.
		controller, name, ok := strings.Cut(file, ".")
		if !ok || controller == "" || controller == "cgroup" || name == "" || strings.Contains(file, "/") {
			return nil, fmt.Errorf("unified setting %q: %w", file, errdefs.ErrInvalidArgument)
		}
		add(file, true, l.Unified[file])
	}
	return list, nil
}

func orMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

// EffectiveLimits returns what holds for the group, be it set on itself or on an
// ancestor: memory in bytes, and the quota and period, in microseconds, of the
// tightest share of the CPU. 0 is no limit.
func (g *Group) EffectiveLimits() (memory, quota int64, period uint64, err error) {
	if !g.exists() {
		return 0, 0, 0, fmt.Errorf("cgroup %s: %w", g.path, errdefs.ErrNotFound)
	}
	memory, quota, period = g.limitsFrom(g.path)
	return memory, quota, period, nil
}

// Ceiling is what the ancestors of the group hold it to, in the units of
// EffectiveLimits. On v1 no CPU quota can be set that is above it.
func (g *Group) Ceiling() (memory, quota int64, period uint64) {
	return g.limitsFrom(path.Dir(g.path))
}

// ParentLimits are those that are set on the parent itself, in the units of
// EffectiveLimits.
func (g *Group) ParentLimits() (memory, quota int64, period uint64) {
	parent := Group{host: g.host, place: place{path: path.Dir(g.path)}}
	quota, period = parent.cpuLimit()
	return parent.memoryLimit(), quota, period
}

// limitsFrom are the tightest of a level and all above it.
func (g *Group) limitsFrom(at string) (memory, quota int64, period uint64) {
	share := math.Inf(1)
	for ; ; at = path.Dir(at) {
		level := Group{host: g.host, place: place{path: at}}
		if m := level.memoryLimit(); m > 0 && (memory == 0 || m < memory) {
			memory = m
		}
		if q, p := level.cpuLimit(); q > 0 && p > 0 && float64(q)/float64(p) < share {
			share, quota, period = float64(q)/float64(p), q, p
		}
		if at == "/" {
			return memory, quota, period
		}
	}
}

// memoryLimit is the limit of one level, or 0. v1 says a multiple of the page
// size close to the largest integer for none.
func (g *Group) memoryLimit() int64 {
	file := "memory.max"
	if g.host.version == 1 {
		file = "memory.limit_in_bytes"
	}
	v, err := strconv.ParseInt(g.value("memory", file), 10, 64)
	if err != nil || v >= 1<<62 {
		return 0
	}
	return v
}

func (g *Group) cpuLimit() (quota int64, period uint64) {
	q, p, _ := strings.Cut(g.value("cpu", "cpu.max"), " ")
	if g.host.version == 1 {
		q, p = g.value("cpu", "cpu.cfs_quota_us"), g.value("cpu", "cpu.cfs_period_us")
	}
	quota, err := strconv.ParseInt(q, 10, 64) // "max" and -1 are none
	if err != nil || quota <= 0 {
		return 0, 0
	}
	period, _ = strconv.ParseUint(p, 10, 64)
	return quota, period
}

// value reads a control file of one line; one that is not there, as in the root
// of v2, is "".
func (g *Group) value(controller, file string) string {
	dir := g.dir(controller)
	if dir == "" {
		return ""
	}
	raw, _ := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(raw))
}

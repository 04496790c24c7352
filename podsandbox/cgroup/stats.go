package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Stats is what the host counts of a pod and all groups below it. What the node
// does not count is 0.
type Stats struct {
	CPU       time.Duration // user and system, since the group was made
	CPUUser   time.Duration // on v1 in steps of 10 ms, and not the exact parts of CPU
	CPUSystem time.Duration

	MemoryUsage     uint64 // bytes, page cache included
	WorkingSet      uint64 // bytes: MemoryUsage but for file pages that are not in use
	RSS             uint64 // bytes of anonymous memory
	PageFaults      uint64
	MajorPageFaults uint64

	Pids     uint64
	OOMKills uint64 // on v1 without those of groups below
}

// counters reads control files of a group. Its methods take a file that is not there for
// one that the node does not count, as long as the group is.
type counters struct {
	*Group
	read   int   // files that were there
	failed error // the first that could not be read
}

// Stats reads the counters, in about six reads. After an error none of them means
// anything: a counter that says 0 for once seems to have begun anew.
func (g *Group) Stats() (Stats, error) {
	c := counters{Group: g}
	var s Stats
	var inactive uint64
	if g.host.version == 1 {
		s.CPU = time.Duration(min(c.number("cpuacct", "cpuacct.usage"), math.MaxInt64))
		var user, system uint64
		c.fields("cpuacct", "cpuacct.stat", map[string]*uint64{"user": &user, "system": &system})
		s.CPUUser, s.CPUSystem = ticks(user), ticks(system)
		c.fields("memory", "memory.stat", map[string]*uint64{
			"total_rss": &s.RSS, "total_inactive_file": &inactive,
			"total_pgfault": &s.PageFaults, "total_pgmajfault": &s.MajorPageFaults,
		})
	} else {
		var usage, user, system uint64
		c.fields("cpu", "cpu.stat", map[string]*uint64{"usage_usec": &usage, "user_usec": &user, "system_usec": &system})
		s.CPU, s.CPUUser, s.CPUSystem = micros(usage), micros(user), micros(system)
		c.fields("memory", "memory.stat", map[string]*uint64{
			"anon": &s.RSS, "inactive_file": &inactive,
			"pgfault": &s.PageFaults, "pgmajfault": &s.MajorPageFaults,
		})
	}
	s.MemoryUsage = c.memoryUsage()
	s.WorkingSet = s.MemoryUsage - min(inactive, s.MemoryUsage)
	s.Pids = c.number("pids", "pids.current")
	s.OOMKills = c.oomKills()
	return s, c.err()
}

func (c *counters) memoryUsage() uint64 {
	if c.host.version == 1 {
		return c.number("memory", "memory.usage_in_bytes")
	}
	return c.number("memory", "memory.current")
}

// OOMKills is how often the kernel killed a process of the group for memory, be
// it for the group's limit or an ancestor's.
func (g *Group) OOMKills() (uint64, error) {
	c := counters{Group: g}
	n := c.oomKills()
	return n, c.err()
}

func (c *counters) oomKills() (n uint64) {
	file := "memory.events"
	if c.host.version == 1 {
		file = "memory.oom_control"
	}
	c.fields("memory", file, map[string]*uint64{"oom_kill": &n})
	return n
}

func (c *counters) err() error {
	if c.failed != nil {
		return c.failed
	}
	if c.read == 0 && !c.exists() {
		return fmt.Errorf("cgroup %s: %w", c.path, errdefs.ErrNotFound)
	}
	return nil
}

func (c *counters) fail(name string, err error) {
	if c.failed != nil {
		return
	}
	if isGone(err) {
		err = fmt.Errorf("it is gone: %w", errdefs.ErrNotFound)
	}
	c.failed = fmt.Errorf("read %s of cgroup %s: %w", name, c.path, err)
}

func (c *counters) file(controller, name string) string {
	dir := c.dir(controller)
	if dir == "" {
		return ""
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Lstat(dir); gone == nil {
			return "" // it is not counted here
		}
	}
	if err != nil {
		c.fail(name, err)
		return ""
	}
	c.read++
	return string(raw)
}

// number reads a file that holds one number.
func (c *counters) number(controller, name string) uint64 {
	text := strings.TrimSpace(c.file(controller, name))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		c.fail(name, err)
	}
	return n
}

// fields reads some of the lines "key number" of a file.
func (c *counters) fields(controller, name string, want map[string]*uint64) {
	missing := len(want)
	for line := range strings.Lines(c.file(controller, name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if into := want[key]; into != nil {
			*into, _ = strconv.ParseUint(value, 10, 64)
			if missing--; missing == 0 {
				return
			}
		}
	}
}

// ticks are of USER_HZ, which is 100 in the kernel's interface everywhere.
func ticks(n uint64) time.Duration  { return time.Duration(n) * (time.Second / 100) }
func micros(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// process is one look at a process. Pid and start time together name it.
type process struct {
	pid, parent int
	start       string // field 22 of /proc/PID/stat
}

// memory in MiB.
type memory struct{ pods, daemon float64 }

// listProcesses reads /proc.
func listProcesses() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	out := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // gone
		}
		if p, ok := parseStat(b); ok {
			out[pid] = p
		}
	}
	return out, nil
}

// parseStat reads /proc/PID/stat; the name in parentheses may contain anything.
func parseStat(b []byte) (process, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return process{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	f := strings.Fields(string(b[end+1:])) // from field 3 on
	if err != nil || len(f) < 20 {
		return process{}, false
	}
	parent, err := strconv.Atoi(f[1])
	return process{pid: pid, parent: parent, start: f[19]}, err == nil
}

// podMemory sums the memory of the processes that are there now and were not
// before: those that match and their descendants, or all when match is nil.
// Neither this program's own children nor the daemon count as pods.
func podMemory(before map[int]process, match *regexp.Regexp, daemon int) (memory, error) {
	now, err := listProcesses()
	if err != nil {
		return memory{}, err
	}
	matched := map[int]bool{}
	for pid, p := range now {
		if old, ok := before[pid]; ok && old.start == p.start || pid == daemon {
			continue
		}
		matched[pid] = match == nil || match.MatchString(describe(pid))
	}
	var m memory
	for pid := range matched {
		if descends(now, pid, os.Getpid(), daemon) || !inherits(now, matched, pid) {
			continue
		}
		m.pods += pss(pid)
	}
	if daemon > 0 {
		m.daemon = pss(daemon)
	}
	return m, nil
}

// inherits says whether the process or a new ancestor of it matched.
func inherits(now map[int]process, matched map[int]bool, pid int) bool {
	for range len(now) {
		yes, isNew := matched[pid]
		if yes {
			return true
		}
		if !isNew {
			return false
		}
		pid = now[pid].parent
	}
	return false
}

// descends says whether top is an ancestor, with no other daemon in between: a
// daemon that this program itself started has pods as descendants.
func descends(now map[int]process, pid, top, daemon int) bool {
	for range len(now) {
		if pid == daemon && daemon > 0 {
			return false
		}
		if pid == top {
			return true
		}
		p, ok := now[pid]
		if !ok || p.parent == 0 {
			return false
		}
		pid = p.parent
	}
	return false
}

// describe is what --pss-match is held against: program, then arguments.
func describe(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return exe + " " + strings.ReplaceAll(string(cmdline), "\x00", " ")
}

// pss of a process in MiB; of one that is gone, and of a kernel thread, 0.
func pss(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	return parsePss(b)
}

func parsePss(rollup []byte) float64 {
	for line := range strings.Lines(string(rollup)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}

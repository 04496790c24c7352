package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestSettings(t *testing.T) {
	all := Limits{
		CPUShares: 1024, CPUQuota: 50_000, CPUPeriod: 100_000, MemoryBytes: 1 << 20, PidsLimit: 7,
		CpusetCpus: "0-1", CpusetMems: "0",
	}
	none := Limits{CPUQuota: -1, MemoryBytes: -1, PidsLimit: -1}
	unified := Limits{Unified: map[string]string{"memory.swap.max": "0", "memory.high": "5"}}
	for _, tc := range []struct {
		name    string
		limits  Limits
		version int
		want    string
	}{
		{"nothing", Limits{}, 1, "[]"},
		{"all", all, 1, "[{cpuset.cpus 0-1} {cpuset.mems 0} {cpu.shares 1024} {cpu.cfs_quota_us -1} " +
			"{cpu.cfs_period_us 100000} {cpu.cfs_quota_us 50000} {memory.limit_in_bytes 1048576} {pids.max 7}]"},
		{"all", all, 2, "[{cpuset.cpus 0-1} {cpuset.mems 0} {cpu.weight 100} {cpu.max 50000 100000} " +
			"{memory.max 1048576} {pids.max 7}]"},
		{"none", none, 1, "[{cpu.cfs_quota_us -1} {memory.limit_in_bytes -1} {pids.max max}]"},
		{"none", none, 2, "[{cpu.max max} {memory.max max} {pids.max max}]"},
		{"unified", unified, 2, "[{memory.high 5} {memory.swap.max 0}]"},
	} {
		got, err := tc.limits.settings(tc.version)
		if err != nil || fmt.Sprint(got) != tc.want {
			t.Errorf("%s on v%d: %v, %v, want %s", tc.name, tc.version, got, err, tc.want)
		}
	}
	if _, err := unified.settings(1); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("unified on v1: %v, want ErrInvalidArgument", err)
	}
	for _, file := range []string{"cgroup.procs", "memory", "memory.", ".max", "memory/../cgroup.kill", ""} {
		l := Limits{Unified: map[string]string{file: "1"}}
		if _, err := l.settings(2); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("unified setting %q: %v, want ErrInvalidArgument", file, err)
		}
	}
}

func TestScopeLimits(t *testing.T) {
	l := Limits{CPUShares: 1024, CPUQuota: 33_333, CPUPeriod: 100_000, MemoryBytes: 5, PidsLimit: -1}
	for version, want := range map[int]string{
		1: "[MemoryLimit=5 CPUShares=1024 CPUQuotaPerSecUSec=340000 TasksMax=18446744073709551615 ]",
		2: "[MemoryMax=5 CPUWeight=100 CPUQuotaPerSecUSec=340000 TasksMax=18446744073709551615 ]",
	} {
		got := "["
		for _, p := range scopeLimits(l, version) {
			got += fmt.Sprintf("%s=%v ", p.Name, p.Value.Value())
		}
		if got += "]"; got != want {
			t.Errorf("v%d: %s, want %s", version, got, want)
		}
	}
	if got := scopeLimits(Limits{}, 2); len(got) != 0 {
		t.Errorf("no limits gave %v", got)
	}
}

// fakeHost is a node of plain directories, which holds what is tested of reading; a
// real kernel is in group_test.go.
func fakeHost(t *testing.T, version int, files map[string]string) *host {
	t.Helper()
	root := t.TempDir()
	h := &host{version: version, mounts: []mount{{dir: root}}}
	if version == 1 {
		h.mounts = nil
		for _, c := range []string{"cpu", "cpuacct", "memory", "pids"} {
			h.mounts = append(h.mounts, mount{filepath.Join(root, c), []string{c}})
		}
	}
	for name, value := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestEffectiveLimits(t *testing.T) {
	for _, tc := range []struct {
		name          string
		version       int
		files         map[string]string
		memory, quota int64
		period        uint64
	}{
		{"v2 none", 2, map[string]string{"k/p/id/memory.max": "max\n", "k/p/id/cpu.max": "max 100000\n"}, 0, 0, 0},
		{"v2 own", 2, map[string]string{
			"k/p/id/memory.max": "5000\n", "k/p/id/cpu.max": "20000 10000\n",
			"k/p/memory.max": "6000\n", "k/p/cpu.max": "300000 100000\n",
		}, 5000, 20000, 10000},
		{"v2 parent's", 2, map[string]string{
			"k/p/id/memory.max": "7000\n", "k/p/id/cpu.max": "max 100000\n",
			"k/p/memory.max": "max\n", "k/p/cpu.max": "max 100000\n",
			"k/memory.max": "6000\n", "k/cpu.max": "150000 100000\n",
		}, 6000, 150000, 100000},
		{"v1 none", 1, map[string]string{
			"memory/k/p/id/memory.limit_in_bytes": "9223372036854771712\n",
			"cpu/k/p/id/cpu.cfs_quota_us":         "-1\n", "cpu/k/p/id/cpu.cfs_period_us": "100000\n",
		}, 0, 0, 0},
		{"v1 parent's", 1, map[string]string{
			"memory/k/p/id/memory.limit_in_bytes": "9223372036854771712\n",
			"memory/k/p/memory.limit_in_bytes":    "4096\n",
			"cpu/k/p/id/cpu.cfs_quota_us":         "200000\n", "cpu/k/p/id/cpu.cfs_period_us": "100000\n",
			"cpu/k/p/cpu.cfs_quota_us": "10000\n", "cpu/k/p/cpu.cfs_period_us": "50000\n",
		}, 4096, 10000, 50000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, err := fakeHost(t, tc.version, tc.files).load("/k/p", "id")
			if err != nil {
				t.Fatal(err)
			}
			memory, quota, period, err := g.EffectiveLimits()
			if err != nil || memory != tc.memory || quota != tc.quota || period != tc.period {
				t.Errorf("got %d, %d, %d, %v, want %d, %d, %d", memory, quota, period, err, tc.memory, tc.quota, tc.period)
			}
		})
	}
}

func TestStatsParsing(t *testing.T) {
	v1 := fakeHost(t, 1, map[string]string{
		"cpuacct/cri-sandbox/id/cpuacct.usage":        "12345\n",
		"cpuacct/cri-sandbox/id/cpuacct.stat":         "user 3\nsystem 4\n",
		"memory/cri-sandbox/id/memory.usage_in_bytes": "1000\n",
		"memory/cri-sandbox/id/memory.stat":           "rss 1\ntotal_rss 600\ntotal_pgfault 9\ntotal_pgmajfault 2\ntotal_inactive_file 300\n",
		"memory/cri-sandbox/id/memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
		"pids/cri-sandbox/id/pids.current":            "8\n",
	})
	v2 := fakeHost(t, 2, map[string]string{
		"cri-sandbox/id/cpu.stat":       "usage_usec 70\nuser_usec 30\nsystem_usec 40\n",
		"cri-sandbox/id/memory.current": "200\n", // less than inactive_file: they are read one after the other
		"cri-sandbox/id/memory.stat":    "anon 600\ninactive_file 300\npgfault 9\npgmajfault 2\n",
		"cri-sandbox/id/memory.events":  "low 0\noom 1\noom_kill 5\noom_group_kill 0\n",
		"cri-sandbox/id/pids.current":   "8\n",
	})
	common := Stats{RSS: 600, PageFaults: 9, MajorPageFaults: 2, Pids: 8, OOMKills: 5}
	want1, want2 := common, common
	want1.CPU, want1.CPUUser, want1.CPUSystem = 12345, 30*time.Millisecond, 40*time.Millisecond
	want1.MemoryUsage, want1.WorkingSet = 1000, 700
	want2.CPU, want2.CPUUser, want2.CPUSystem = 70*time.Microsecond, 30*time.Microsecond, 40*time.Microsecond
	want2.MemoryUsage = 200
	for h, want := range map[*host]Stats{v1: want1, v2: want2} {
		g, err := h.load("", "id")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.Stats(); err != nil || got != want {
			t.Errorf("v%d: got %+v, %v, want %+v", h.version, got, err, want)
		}
	}
}

// TestUpdateWithoutAController: what a node does not control cannot be limited there,
// and needs no limit taken off.
func TestUpdateWithoutAController(t *testing.T) {
	for version, h := range map[int]*host{
		1: fakeHost(t, 1, map[string]string{"pids/cri-sandbox/id/pids.max": "max\n"}),
		2: fakeHost(t, 2, map[string]string{"cri-sandbox/id/pids.max": "max\n"}),
	} {
		g, err := h.load("", "id")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Update(Limits{MemoryBytes: -1, CPUQuota: -1, PidsLimit: -1}); err != nil {
			t.Errorf("v%d: take limits off: %v", version, err)
		}
		if err := g.Update(Limits{MemoryBytes: 4096}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("v%d: set a limit: %v, want FailedPrecondition", version, err)
		}
	}
}

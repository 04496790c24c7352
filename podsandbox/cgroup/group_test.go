package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// testParent is below no other test's and no daemon's.
var testParent = fmt.Sprintf("/cri-sandbox-test-%d", os.Getpid())

// realHosts are the hierarchies of this node: its own, and where that is v1, a
// bare v2 one if it is mounted, which lacks the controllers.
func realHosts(t testing.TB) map[string]*host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	hosts := map[string]*host{}
	if own := *thisHost(); own.version != 0 {
		own.systemd = false // the group under test is a plain directory
		hosts[fmt.Sprintf("v%d", own.version)] = &own
		const unified = "/sys/fs/cgroup/unified"
		var info unix.Statfs_t
		if own.version == 1 && unix.Statfs(unified, &info) == nil && info.Type == unix.CGROUP2_SUPER_MAGIC {
			hosts["bare v2"] = &host{version: 2, mounts: []mount{{dir: unified}}}
		}
	}
	if len(hosts) == 0 {
		t.Skip("needs mounted control groups")
	}
	t.Cleanup(func() {
		for name, h := range hosts {
			for _, m := range h.mounts {
				if _, err := os.Stat(filepath.Join(m.dir, testParent)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %s is left in %s", name, testParent, m.dir)
				}
			}
		}
	})
	return hosts
}

func mustMake(t testing.TB, h *host, parent, id string, l Limits) *Group {
	t.Helper()
	g, err := h.create(parent, id, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustDelete(t, g) })
	return g
}

func mustDelete(t testing.TB, g *Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.Delete(ctx); err != nil {
		t.Error(err)
	}
}

// join starts a program and moves it to the group.
func join(t testing.TB, g *Group, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for _, dir := range g.Paths() {
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	in.Write([]byte("go\n"))
	return cmd
}

func TestGroupLife(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			parent := testParent + "/a/b"
			if _, err := h.load(parent, "pod"); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("load before create: %v, want ErrNotFound", err)
			}
			g := mustMake(t, h, parent, "pod", Limits{})
			other := mustMake(t, h, parent, "other", Limits{})
			if _, err := h.create(parent, "pod", Limits{}); err != nil {
				t.Errorf("create again: %v", err)
			}
			cmd := join(t, g, "sh", "-c", "read go; while :; do :; done")
			below := make([]string, 0, len(g.Paths()))
			for _, dir := range g.Paths() {
				below = append(below, filepath.Join(dir, "below", "it"))
				if err := os.MkdirAll(below[len(below)-1], 0o755); err != nil {
					t.Fatal(err)
				}
			}
			membership, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
			if err != nil || bytes.Count(membership, []byte(parent+"/pod\n")) != len(g.Paths()) {
				t.Errorf("member of %s, %v, want %d of %s", membership, err, len(g.Paths()), g.path)
			}
			for { // a fresh process may have used nothing yet
				s, err := g.Stats()
				if err != nil || (h.version == 1 && (s.Pids != 1 || s.MemoryUsage == 0)) {
					t.Errorf("stats %+v, %v", s, err)
					break
				}
				if s.CPU > 0 {
					break
				}
			}

			again, err := h.load(parent, "pod") // as after a restart
			if err != nil {
				t.Fatal(err)
			}
			mustDelete(t, again)
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
				t.Errorf("the process ended with %v, want SIGKILL", err)
			}
			mustDelete(t, again)
			if _, err := g.Stats(); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("stats after delete: %v, want ErrNotFound", err)
			}
			if _, _, _, err := g.EffectiveLimits(); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("limits after delete: %v, want ErrNotFound", err)
			}
			if !other.exists() {
				t.Error("the neighbour is gone, too")
			}
			mustDelete(t, other) // and with it the parents: see realHosts
		})
	}
}

// TestDeleteKeepsAForeignParent deletes the only pod of a parent that Create found.
func TestDeleteKeepsAForeignParent(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			for _, m := range h.mounts {
				dir := filepath.Join(m.dir, testParent)
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := unix.Rmdir(dir); err != nil {
						t.Errorf("the foreign parent: %v", err)
					}
				}()
			}
			mustDelete(t, mustMake(t, h, testParent, "pod", Limits{}))
		})
	}
}

// TestCreateMeetsDelete makes and removes pods of one parent side by side, each
// removal taking the parent with it when it can.
func TestCreateMeetsDelete(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					for range 25 {
						g, err := h.create(testParent, strconv.Itoa(i), Limits{})
						if err != nil {
							t.Error(err)
							return
						}
						mustDelete(t, g)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestUpdateMeetsDelete: limits for a pod that is just being removed are refused,
// whether the group's files are gone already or go while one is written.
func TestUpdateMeetsDelete(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				g := mustMake(t, h, testParent, "pod", Limits{})
				var refused error
				done := make(chan struct{})
				go func() {
					defer close(done)
					for refused == nil {
						refused = g.Update(Limits{CPUShares: 512, CPUPeriod: 100_000, CPUQuota: 50_000, MemoryBytes: 1 << 20, PidsLimit: 100})
					}
				}()
				mustDelete(t, g)
				<-done
				if !errdefs.IsFailedPrecondition(refused) {
					t.Fatalf("%v, want ErrFailedPrecondition", refused)
				}
			}
		})
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			if _, err := h.create(testParent, "pod", Limits{CpusetCpus: "garbage", PidsLimit: -7}); err == nil {
				t.Error("garbage was accepted")
			} else if h.version == 1 && !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("garbage: %v, want ErrInvalidArgument", err)
			}
		})
	}
}

func TestLimitsOnV1(t *testing.T) {
	h := realHosts(t)["v1"]
	if h == nil {
		t.Skip("needs cgroup v1")
	}
	l := Limits{
		CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, MemoryBytes: 64 << 20, PidsLimit: 50,
		CpusetCpus: "0", CpusetMems: "0",
	}
	g := mustMake(t, h, testParent, "pod", l)
	for file, want := range map[string]string{
		"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000",
		"memory.limit_in_bytes": "67108864", "pids.max": "50", "cpuset.cpus": "0", "cpuset.mems": "0",
	} {
		controller, _, _ := strings.Cut(file, ".")
		if got := g.value(controller, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	memory, quota, period, err := g.EffectiveLimits()
	if err != nil || memory != 64<<20 || quota != 50_000 || period != 100_000 {
		t.Errorf("effective limits %d, %d, %d, %v", memory, quota, period, err)
	}

	// A child may have half a CPU as its parent has, in any period.
	child := mustMake(t, h, testParent+"/pod", "child", Limits{CPUQuota: 50_000, CPUPeriod: 100_000})
	for _, period := range []uint64{10_000, 1_000_000, 20_000} {
		if err := child.Update(Limits{CPUQuota: int64(period / 2), CPUPeriod: period}); err != nil {
			t.Error(err)
		}
	}
	if err := child.Update(Limits{CPUQuota: 60_000, CPUPeriod: 100_000}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("more than the parent's: %v, want ErrInvalidArgument", err)
	}
	if err := g.Update(Limits{MemoryBytes: -1, CPUQuota: -1, PidsLimit: -1}); err != nil {
		t.Error(err)
	}
	if memory, quota, _, err := g.EffectiveLimits(); err != nil || memory != 0 || quota != 0 {
		t.Errorf("effective limits %d, %d, %v, want none", memory, quota, err)
	}
}

// TestOOMKill lets a process eat more than the group may have.
func TestOOMKill(t *testing.T) {
	h := realHosts(t)["v1"]
	if h == nil {
		t.Skip("needs cgroup v1 with the memory controller")
	}
	g := mustMake(t, h, testParent, "pod", Limits{MemoryBytes: 16 << 20})
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Fatalf("%d kills, %v, want 0", n, err)
	}
	eater := join(t, g, "sh", "-c", "read go; exec tail /dev/zero")
	var exit *exec.ExitError
	if err := eater.Wait(); !errors.As(err, &exit) || !strings.Contains(exit.String(), "killed") {
		t.Errorf("the eater ended with %v", err)
	}
	if n, err := g.OOMKills(); err != nil || n == 0 {
		t.Errorf("%d kills, %v", n, err)
	}
}

func BenchmarkStats(b *testing.B) {
	for name, h := range realHosts(b) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			g, err := h.create(testParent, "pod", Limits{})
			if err != nil {
				b.Fatal(err)
			}
			defer mustDelete(b, g)
			for b.Loop() {
				if _, err := g.Stats(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestKillAllSparesItself(t *testing.T) {
	dir := t.TempDir()
	procs := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(procs, fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := killAll(dir); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("kill of this process: %v, want ErrFailedPrecondition", err)
	}
}

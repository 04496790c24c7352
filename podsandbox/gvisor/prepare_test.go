package gvisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// bindPod boots a machine that knows nothing of the pod, and makes it the pod's.
func bindPod(t *testing.T, e *Engine, m engine.Machine, cfg engine.Config, ns *testNetNS) *pod {
	t.Helper()
	prepared, err := e.Prepare(testContext(t), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prepared.Discard(context.Background()) })
	s, err := prepared.Bind(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &pod{Sandbox: s.(*Sandbox), t: t, eng: e, ns: ns}
}

// machineFor has another id and directory than the pod, and nothing of it.
func machineFor(t *testing.T) engine.Machine {
	t.Helper()
	m := podConfig(t, nil).Machine()
	m.Hostname, m.HostNetwork = "", false
	return m
}

func TestBindGivesThePodsOwn(t *testing.T) {
	e, ns := newTestEngine(t), newTestNetNS(t)
	m, cfg := machineFor(t), podConfig(t, ns)
	cfg.OOMScoreAdj = new(500)
	cfg.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000"}
	p := bindPod(t, e, m, cfg, ns)
	if left, err := os.ReadDir(m.Dir); err != nil || len(left) > 0 {
		t.Errorf("the machine's directory holds %v, %v", left, err)
	}
	if score, err := os.ReadFile("/proc/" + strconv.Itoa(p.Process().PID) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(score)) != "500" {
		t.Errorf("OOM score %q, %v", score, err)
	}
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// Paths that only the sandbox knows are asked of its root container.
	spec := shell(newRootfs(t), `hostname; ip addr show eth0; cat /proc/sys/net/ipv4/ip_local_port_range
		echo 1 > /proc/sys/net/ipv4/ip_forward || echo read-only
		echo ready; while :; do echo from the pod | nc -l -p 8000; done`)
	spec.Linux.ReadonlyPaths, spec.Linux.MaskedPaths = []string{"/proc/sys"}, []string{"/proc/cmdline"}
	c := p.start(spec)
	c.waitFor(t, "ready")
	for _, want := range []string{"pod-host\n", podIP + "/24", "2000\t3000\n", "read-only\n"} {
		if !strings.Contains(c.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, c)
		}
	}
	eventually(t, func() error {
		_, err := p.dialPod("8000")
		return err
	})

	adopted := p.adopt()
	if out, _, err := adopted.sh(c.ID, "hostname"); err != nil || out != "pod-host\n" {
		t.Errorf("host name after an adoption: %q, %v", out, err)
	}
	memory := map[string]engine.MemoryVolume{"/vol": {Name: "cache", Mode: 0o777}}
	v := adopted.inMemory(user(t, []specs.Mount{bindMount("/vol", t.TempDir(), "rw")}, "make", "/vol/x"), memory)
	v.waitFor(t, "make /vol/x")
	if use, err := adopted.Stats(testContext(t)); err != nil || use[c.ID].Pids == 0 {
		t.Errorf("use %+v, %v", use, err)
	}
}

// All that a sandbox consists of moves, so that the pod's limits hold it.
func TestBindMovesIntoCgroups(t *testing.T) {
	for name, hierarchy := range map[string]func(*testing.T) []string{"v1": newCgroups, "v2": newUnifiedCgroup} {
		t.Run(name, func(t *testing.T) {
			waits, pods := hierarchy(t), hierarchy(t)
			if len(waits) == 0 {
				t.Skip("no cgroup hierarchy of this version")
			}
			e, ns := newTestEngine(t), newTestNetNS(t)
			m, cfg := machineFor(t), podConfig(t, ns)
			m.CgroupPaths = waits
			cfg.ID = strings.Repeat("c", 64)
			for _, g := range pods {
				cfg.CgroupPaths = append(cfg.CgroupPaths, newCgroupIn(t, g, cfg.ID))
			}
			p := bindPod(t, e, m, cfg, ns)
			for _, g := range waits {
				if left := processesIn(t, g); len(left) > 0 {
					t.Errorf("%s holds %v", g, left)
				}
			}
			if err := p.StartRoot(testContext(t)); err != nil {
				t.Fatal(err)
			}
			p.start(shell(newRootfs(t), "sleep 1000"))
			for _, g := range cfg.CgroupPaths {
				// The Sentry, its stubs and the gofer.
				pids := processesIn(t, g)
				if len(pids) < 3 || !strings.Contains(strings.Join(pids, " ")+" ", strconv.Itoa(p.Process().PID)+" ") {
					t.Errorf("%s holds %v", g, pids)
				}
			}
			for _, g := range waits {
				if left := processesIn(t, g); len(left) > 0 {
					t.Errorf("%s holds %v of what was started later", g, left)
				}
			}
			// It calls itself something else, and is found by where it is.
			if err := newTestEngine(t).Reap(testContext(t), cfg.ID); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if !p.sentry.proc.ended() {
					return errors.New("it was not found by the pod's id")
				}
				return nil
			})
		})
	}
}

// newUnifiedCgroup makes a cgroup of version 2, or returns none.
func newUnifiedCgroup(t *testing.T) []string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return []string{newCgroupIn(t, root, "gvisor-test-"+newID(t))}
		}
	}
	return nil
}

func newCgroupIn(t *testing.T, parent, name string) string {
	t.Helper()
	path := filepath.Join(parent, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	t.Cleanup(func() { eventually(t, func() error { return unix.Rmdir(path) }) })
	return path
}

func processesIn(t *testing.T, cgroup string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// A pod with ids of its own takes a machine that has the same.
func TestBindWithIDs(t *testing.T) {
	e, ns := newTestEngine(t), newTestNetNS(t)
	m, cfg := machineFor(t), podConfig(t, ns)
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	m.IDs = idmap.Mapping{UIDs: ids, GIDs: ids}
	cfg.IDs = m.IDs
	p := bindPod(t, e, m, cfg, ns)
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	uids, err := os.ReadFile("/proc/" + strconv.Itoa(p.Process().PID) + "/uid_map")
	if got := strings.Fields(string(uids)); err != nil || len(got) != 3 || got[1] != "100000" {
		t.Errorf("its user ids are %q, %v", uids, err)
	}
}

// What keeps a machine from becoming the pod's when it is no refusal ends it.
func TestBindThatFailsLeavesNothing(t *testing.T) {
	e, ns := newTestEngine(t), newTestNetNS(t)
	for name, change := range map[string]func(*engine.Config){
		"no network namespace": func(c *engine.Config) { c.NetNS = "/no/such/namespace" },
		"no cgroup":            func(c *engine.Config) { c.CgroupPaths = []string{"/no/such/cgroup"} },
		"no directory":         func(c *engine.Config) { c.Dir = "/no/such/directory" },
	} {
		m, cfg := machineFor(t), podConfig(t, ns)
		change(&cfg)
		prepared, err := e.Prepare(testContext(t), m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := prepared.Bind(testContext(t), cfg); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s: %v", name, err)
		}
		found, err := e.Find(filepath.Dir(m.Dir), nil)
		if err != nil || len(found) > 0 {
			t.Errorf("%s: left are %+v, %v", name, found, err)
		}
	}
}

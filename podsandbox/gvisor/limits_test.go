package gvisor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

const showLimits = "cd /sys/fs/cgroup; cat memory.max memory.high cpu.max cpu.weight pids.max | tr '\\n' ';'"

func TestLimitsOf(t *testing.T) {
	for want, r := range map[string]*specs.LinuxResources{
		"[{memory.max max} {cpu.max max 100000}]": {
			Memory: &specs.LinuxMemory{Swap: new(int64(5))}, CPU: &specs.LinuxCPU{Quota: new(int64(-1))},
			Unified: map[string]string{"memory.oom.group": "1"},
		},
		"[{memory.max 4096} {cpu.max 50000 20000} {cpu.weight 1} {pids.max 7} {memory.high 9} {pids.max 8}]": {
			Memory:  &specs.LinuxMemory{Limit: new(int64(4096))},
			CPU:     &specs.LinuxCPU{Quota: new(int64(50000)), Period: new(uint64(20000)), Shares: new(uint64(2))},
			Pids:    &specs.LinuxPids{Limit: new(int64(7))},
			Unified: map[string]string{"memory.high": "9", "pids.max": "8", "cgroup.kill": "1"},
		},
	} {
		if got := fmt.Sprint(limitsOf(r)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestLimitsAreSeenByTheContainer: from its first instruction on, and after every
// change, of this daemon or a later one.
func TestLimitsAreSeenByTheContainer(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	limited := shell(root, showLimits+"; sleep 100")
	limited.Linux.Resources = &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: new(int64(512 << 20))},
		CPU:     &specs.LinuxCPU{Quota: new(int64(150000)), Period: new(uint64(50000)), Shares: new(uint64(1024))},
		Unified: map[string]string{"pids.max": "20", "memory.oom.group": "1"},
	}
	c := p.start(limited)
	c.waitFor(t, "536870912;max;150000 50000;100;20;")
	forks := shell(root, "for i in 1 2 3 4 5 6; do sleep 9 & done")
	forks.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"pids.max": "5"}}
	if out, _ := p.run(forks); !strings.Contains(out, "fork") {
		t.Errorf("more processes than pids.max: %q", out)
	}
	other := p.start(shell(root, showLimits+"; sleep 100"))
	other.waitFor(t, "max;max;max 100000;100;max;")

	wants := func(s *Sandbox, id, want string) {
		t.Helper()
		if out, _, err := p.sh(id, showLimits); err != nil || out != want {
			t.Errorf("it sees %q, %v, want %q", out, err, want)
		}
	}
	ctx := testContext(t)
	if err := p.Update(ctx, other.ID, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 20))}}); err != nil {
		t.Fatal(err)
	}
	wants(p.Sandbox, other.ID, "1048576;max;max 100000;100;max;")
	adopted, err := newTestEngine(t).Adopt(ctx, p.cfg, p.Process())
	if err != nil {
		t.Fatal(err)
	}
	if err := adopted.Update(ctx, c.ID, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: new(int64(5000)), Shares: new(uint64(2))}}); err != nil {
		t.Fatal(err)
	}
	wants(p.Sandbox, c.ID, "max;max;5000 100000;1;20;")
	wants(p.Sandbox, other.ID, "1048576;max;max 100000;100;max;")

	garbage := &specs.LinuxResources{Unified: map[string]string{"memory.high": "much"}}
	if err := p.Update(ctx, c.ID, garbage); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "much") {
		t.Errorf("garbage: %v, want InvalidArgument", err)
	}
	refused := shell(root, "echo began")
	refused.Linux.Resources = garbage
	bad, w := newContainer(t, refused)
	if err := p.Start(ctx, bad.Container); !errdefs.IsInvalidArgument(err) {
		t.Errorf("start with garbage: %v, want InvalidArgument", err)
	}
	w.Close()
	if err := p.Update(ctx, bad.ID, nil); !errdefs.IsNotFound(err) {
		t.Errorf("limits of what was not started: %v, want NotFound", err)
	}
}

// TestLimitsCannotBeWrittenByTheContainer, not even with a cgroup mount that can be
// written to: it could have as many processes as it likes.
func TestLimitsCannotBeWrittenByTheContainer(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "sleep 100")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"rw"}})
	spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 30))}}
	c := p.start(spec)
	// Of the program that sets them, each mount could lift the ban.
	if err := p.Update(testContext(t), c.ID, spec.Linux.Resources); err != nil {
		t.Fatal(err)
	}
	out, _, err := p.sh(c.ID, "cd /sys/fs/cgroup; mkdir below; for f in memory.max pids.max cpu.max; do echo 4096 >$f; cat $f; done 2>&1")
	if err != nil || strings.Count(out, "not permitted") != 3 || strings.Contains(out, "4096") {
		t.Errorf("%q, %v", out, err)
	}
	if out, _, _ := p.sh(c.ID, "ls /sys/fs/cgroup/below/cgroup.procs"); !strings.Contains(out, "procs") {
		t.Errorf("the mount cannot be written to: %q", out)
	}
	// And it leaves no way to the others' cgroups.
	if b, err := p.control.readFile(testContext(t), "/sys/fs/cgroup/cgroup.procs"); err == nil {
		t.Errorf("the root container has cgroups mounted: %q", b)
	}
}

// TestLimitsHaveControllers: without them a JVM looks at no limits.
func TestLimitsHaveControllers(t *testing.T) {
	all := []specs.LinuxIDMapping{{HostID: 70000, Size: 65536}}
	for name, change := range map[string]func(*engine.Config){
		"plain":                 func(*engine.Config) {},
		"with ids of its own":   func(c *engine.Config) { c.IDs = idmap.Mapping{UIDs: all, GIDs: all} },
		"on the host's network": func(c *engine.Config) { c.NetNS = "" },
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t, change)
			spec := shell(newRootfs(t), `awk '$1 ~ /^(memory|cpu|cpuset|cpuacct)$/ { print $2 $4 }' /proc/cgroups; cat /sys/fs/cgroup/memory.max; echo x 2>&1 >/proc/cgroups`)
			spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(512 << 20))}}
			for range 2 {
				if out, _ := p.run(spec); strings.Count(out, "01\n") != 4 || !strings.Contains(out, "536870912") || !strings.Contains(out, "ead-only") {
					t.Errorf("it sees %q", out)
				}
			}
			spec.Linux.Resources = nil
			if out, _ := p.run(spec); strings.Contains(out, "01") {
				t.Errorf("without limits it sees %q", out)
			}
		})
	}
}

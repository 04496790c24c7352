package enginetest

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// machine is one that a pod can be bound to, with all left open that Bind can change.
func (b bench) machine(cfg engine.Config) engine.Machine {
	m := b.s.Config(b).Machine()
	m.NetNS, m.CgroupPaths, m.OOMScoreAdj, m.Hostname = "", nil, nil, ""
	m.HostNetwork, m.IDs = cfg.Machine().HostNetwork, cfg.IDs
	m.MemoryLimit, m.CPUQuota, m.CPUPeriod = cfg.MemoryLimit, cfg.CPUQuota, cfg.CPUPeriod
	return m
}

// prepare boots a machine, and discards it after the test unless it was bound.
func (b bench) prepare(e engine.Engine, m engine.Machine) engine.Prepared {
	b.Helper()
	p, err := e.Prepare(b.ctx(), m)
	b.must(err)
	b.Cleanup(func() {
		if err := p.Discard(context.Background()); err != nil {
			b.Errorf("discard a machine: %v", err)
		}
	})
	return p
}

// testPrepare: what was prepared for nobody is this pod's, and found as such by the next
// daemon.
func testPrepare(b bench) {
	e, cfg := b.s.Engine(b), b.s.Config(b)
	p := b.prepare(e, b.machine(cfg))
	sb, err := p.Bind(b.ctx(), cfg)
	b.must(err)
	old := b.node(e, cfg, sb)
	_, err = p.Bind(b.ctx(), b.s.Config(b))
	b.is("bind it again", err, errdefs.IsFailedPrecondition)
	b.must(p.Discard(b.ctx()))
	b.must(old.StartRoot(b.ctx()))
	runs, over := old.startReady(Polite), old.start("exit 12")
	old.wait(over)

	n := old.adopt()
	if n.Process() != old.Process() {
		b.Errorf("process %+v, want %+v", n.Process(), old.Process())
	}
	if st := n.wait(over); st.Code != 12 {
		b.Errorf("one that ended before: %+v", st)
	}
	if st := n.exec(runs, "exit 5"); st.Code != 5 {
		b.Errorf("exec: %+v", st)
	}
	if st := n.wait(n.start("exit 2")); st.Code != 2 {
		b.Errorf("a new container: %+v", st)
	}
	b.must(n.Kill(b.ctx()))
	<-old.Done()
}

// testPrepareAsIs: a machine of the pod's own is bound without anything to do.
func testPrepareAsIs(b bench) {
	e, cfg := b.s.Engine(b), b.s.Config(b)
	sb, err := b.prepare(e, cfg.Machine()).Bind(b.ctx(), cfg)
	b.must(err)
	n := b.node(e, cfg, sb)
	b.must(n.StartRoot(b.ctx()))
	if st := n.wait(n.adopt().start("exit 3")); st.Code != 3 {
		b.Errorf("%+v, want 3", st)
	}
}

// testBindRefuses: what no process can change is refused, and the machine is good for
// another pod.
func testBindRefuses(b bench) {
	e, cfg := b.s.Engine(b), b.s.Config(b)
	p := b.prepare(e, b.machine(cfg))
	for what, change := range map[string]func(*engine.Config){
		"another network": func(c *engine.Config) {
			if c.NetNS == "" {
				c.NetNS = "/proc/self/ns/net"
			} else {
				c.NetNS = ""
			}
		},
		"a user namespace": func(c *engine.Config) {
			ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			c.IDs = idmap.Mapping{UIDs: ids, GIDs: ids}
		},
		"another size": func(c *engine.Config) { c.MemoryLimit = 100 << 20 },
		"processors":   func(c *engine.Config) { c.CPUQuota, c.CPUPeriod = 50000, 100000 },
	} {
		other := cfg
		change(&other)
		_, err := p.Bind(b.ctx(), other)
		b.is("bind to a pod with "+what, err, errdefs.IsFailedPrecondition)
	}
	sb, err := p.Bind(b.ctx(), cfg)
	b.must(err)
	n := b.node(e, cfg, sb)
	b.must(n.StartRoot(b.ctx()))
	if st := n.wait(n.start("exit 3")); st.Code != 3 {
		b.Errorf("%+v, want 3", st)
	}
}

// testDiscard: nothing is left of what nobody needed, also for the next daemon to find.
func testDiscard(b bench) {
	e, cfg := b.s.Engine(b), b.s.Config(b)
	m := b.machine(cfg)
	p := b.prepare(e, m)
	is := func(f engine.Found) bool { return f.Sandbox == m.ID }
	found, err := b.s.Engine(b).Find(filepath.Dir(m.Dir), nil)
	b.must(err)
	if !slices.ContainsFunc(found, is) {
		b.Errorf("a machine is not found among %+v", found)
	}
	for range 2 {
		b.must(p.Discard(b.ctx()))
	}
	_, err = p.Bind(b.ctx(), cfg)
	if err == nil {
		b.Error("a discarded machine was bound")
	}
	found, err = e.Find(filepath.Dir(m.Dir), nil)
	b.must(err)
	if slices.ContainsFunc(found, is) {
		b.Errorf("it is left: %+v", found)
	}
}

// testBindDead: a machine may end while it waits.
func testBindDead(b bench) {
	e, cfg := b.s.Engine(b), b.s.Config(b)
	m := b.machine(cfg)
	p := b.prepare(e, m)
	b.must(e.Reap(b.ctx(), m.ID))
	_, err := p.Bind(b.ctx(), cfg)
	b.is("bind what has ended", err, errdefs.IsUnavailable)
}

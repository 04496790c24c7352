package gvisor

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// inPIDNamespace is a spec of a container in the pid namespace of this path.
func inPIDNamespace(path string, spec *specs.Spec) *specs.Spec {
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: path}}
	return spec
}

// startOwner starts a container in a pid namespace that others can join.
func (p *pod) startOwner(script string) (*running, string) {
	p.t.Helper()
	c, w := newContainer(p.t, shell(newRootfs(p.t), script))
	path := engine.PIDNamespaceOf(c.ID)
	inPIDNamespace(path, c.Spec)
	if err := p.Create(testContext(p.t), c.Container); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Start(testContext(p.t), c.Container); err != nil {
		p.t.Fatal(err)
	}
	w.Close()
	return c, path
}

// startRefused starts a container that must be refused, and leaves the sandbox alive.
func (p *pod) startRefused(spec *specs.Spec) error {
	p.t.Helper()
	c, w := newContainer(p.t, spec)
	defer w.Close()
	if err := p.Create(testContext(p.t), c.Container); err != nil {
		p.t.Fatal(err)
	}
	err := p.Start(testContext(p.t), c.Container)
	if err == nil {
		p.t.Fatal("it was started")
	}
	if err := p.sentry.requireAlive(); err != nil {
		p.t.Fatal(err)
	}
	return err
}

// TestPIDNamespaceJoin: who joins sees the owner's processes and its root, is not
// the first process, and ends with the owner; others see neither.
func TestPIDNamespaceJoin(t *testing.T) {
	p := startPod(t)
	owner, path := p.startOwner("echo here > /tmp/mark; echo ready; exec sleep 4000")
	owner.waitFor(t, "ready")
	other, _ := p.startOwner("echo ready; exec sleep 4001")
	other.waitFor(t, "ready")

	joined := p.start(inPIDNamespace(path, shell(newRootfs(t), "sleep 4002 & cat /proc/1/root/tmp/mark; echo ready; wait")))
	joined.waitFor(t, "ready")
	if out := joined.String(); out != "here\nready\n" {
		t.Errorf("the owner's root has %q", out)
	}
	ps := func(id string) string {
		t.Helper()
		out, _, err := p.sh(id, "ps")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for id, want := range map[string]map[string]bool{
		joined.ID: {"sleep 4000": true, "sleep 4001": false, "sleep 4002": true},
		owner.ID:  {"sleep 4000": true, "sleep 4001": false, "sleep 4002": true},
		other.ID:  {"sleep 4000": false, "sleep 4001": true, "sleep 4002": false},
	} {
		out := ps(id)
		for name, there := range want {
			if strings.Contains(out, name) != there {
				t.Errorf("%s: there %v, want %v, in\n%s", name, !there, there, out)
			}
		}
	}
	out, st, err := p.sh(joined.ID, "tr '\\0' ' ' < /proc/1/cmdline; kill -0 1 && echo reached")
	if err != nil || st.Code != 0 || out != "sleep 4000 reached\n" {
		t.Errorf("what it sees of the first process: %q, %v, %v", out, st, err)
	}

	// Its own end ends nobody else.
	if err := p.Signal(testContext(t), joined.ID, 9, true); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(testContext(t), joined.ID); err != nil || st.Code != 137 {
		t.Errorf("killed: %v, %v", st, err)
	}
	if err := p.Destroy(testContext(t), joined.ID); err != nil {
		t.Fatal(err)
	}
	if out := ps(owner.ID); !strings.Contains(out, "sleep 4000") || strings.Contains(out, "sleep 4002") {
		t.Errorf("after its end the owner sees\n%s", out)
	}

	// The owner's end ends all.
	joined = p.start(inPIDNamespace(path, shell(newRootfs(t), "echo ready; sleep 4003")))
	joined.waitFor(t, "ready")
	if err := p.Signal(testContext(t), owner.ID, 9, false); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(testContext(t), joined.ID); err != nil || st.Code != 137 {
		t.Errorf("after the owner's end: %v, %v", st, err)
	}
	// Its end may come between the look at it and the start.
	late, w := newContainer(t, inPIDNamespace(path, shell(newRootfs(t), "sleep 1")))
	defer w.Close()
	if err := p.pidNamespaces.explainStart(late.Container, p.halfStart(late.Container)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), owner.ID) {
		t.Errorf("joining a container that has just ended: %v", err)
	}
	if err := p.Destroy(testContext(t), late.ID); err != nil {
		t.Fatal(err)
	}
	// Not yet destroyed, and then: the sandbox would know nobody with the path.
	for range 2 {
		err := p.startRefused(inPIDNamespace(path, shell(newRootfs(t), "sleep 1")))
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), owner.ID) {
			t.Errorf("joining an ended container: %v", err)
		}
		for _, id := range []string{owner.ID, joined.ID} {
			if err := p.Destroy(testContext(t), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out := ps(other.ID); !strings.Contains(out, "sleep 4001") {
		t.Errorf("another container sees\n%s", out)
	}
}

// TestPIDNamespaceJoinThatFails ends neither the sandbox nor the way for the next one.
func TestPIDNamespaceJoinThatFails(t *testing.T) {
	p := startPod(t)
	owner, path := p.startOwner("echo ready; exec sleep 4000")
	owner.waitFor(t, "ready")
	for range 3 {
		spec := inPIDNamespace(path, shell(newRootfs(t), ""))
		spec.Process.Args = []string{"/no/such/program"}
		if err := p.startRefused(spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a program that is not there: %v", err)
		}
	}
	// As if its removal had failed, too: the Sentry may take it for the owner, and
	// looks in no order.
	for range 6 {
		half, w := newContainer(t, inPIDNamespace(path, shell(newRootfs(t), "")))
		defer w.Close()
		half.Spec.Process.Args = []string{"/no/such/program"}
		if p.halfStart(half.Container) == nil {
			t.Fatal("it was started")
		}
		entry := p.containers.get(owner.ID)
		_ = entry.turn.lock(testContext(t))
		entry.joining = half.ID
		entry.turn.unlock()
		joined := p.start(inPIDNamespace(path, shell(newRootfs(t), "ps; echo ready; sleep 4001")))
		joined.waitFor(t, "ready")
		if out := joined.String(); !strings.Contains(out, "sleep 4000") {
			t.Errorf("it sees\n%s", out)
		}
	}
}

// halfStart starts a container and undoes nothing.
func (p *pod) halfStart(c engine.Container) error {
	p.t.Helper()
	ctx := testContext(p.t)
	if err := p.Create(ctx, c); err != nil {
		p.t.Fatal(err)
	}
	stdio, err := stdioOf(c)
	if err != nil {
		p.t.Fatal(err)
	}
	g := p.containers.get(c.ID).gofer
	if err := g.await(ctx); err != nil {
		p.t.Fatal(err)
	}
	if err := p.control.takePlace(ctx, c.ID, ttyOf(c, stdio)); err != nil {
		p.t.Fatal(err)
	}
	args, files, err := g.startArgs(c, stdio)
	if err != nil {
		p.t.Fatal(err)
	}
	defer closeAll(files.own)
	return p.control.call(ctx, methodStart, args, nil, files.all...)
}

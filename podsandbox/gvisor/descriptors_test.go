package gvisor

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

func TestDescriptors(t *testing.T) {
	p := startPod(t)
	one := p.start(shell(newRootfs(t), "echo ready; exec sleep 1000"))
	// Each nc has the three of stdio and its socket.
	two := p.start(shell(newRootfs(t), `nc -l -p 7001 & nc -l -p 7002 &
		until [ $(netstat -ltn | grep -c :700) = 2 ]; do sleep 0.1; done
		exec 5</etc/passwd 6</etc/passwd 7</etc; echo ready; exec sleep 1000`))
	one.waitFor(t, "ready")
	two.waitFor(t, "ready")
	want := map[string]engine.Descriptors{one.ID: {Open: 3}, two.ID: {Open: 6 + 4 + 4, Sockets: 2}}
	got, err := p.Descriptors(testContext(t), []string{one.ID, "unknown", two.ID})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("counted %+v, %v; want %+v", got, err, want)
	}
	if got, err := p.Descriptors(testContext(t), nil); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

// A program that nobody waits for any more is killed, and the next one runs.
func TestAskEndsWithItsContext(t *testing.T) {
	p := startPod(t)
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	if _, err := p.programs.ask(ctx, "forever", guest.Pause(), nil, 8); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("one that does not end: %v", err)
	}
	if _, err := p.programs.ask(testContext(t), "count", guest.CountDescriptors(), []string{"/proc/1/fd"}, 16); err != nil {
		t.Fatalf("the next one: %v", err)
	}
	if ps, err := p.control.processes(testContext(t), p.cfg.ID); err != nil || len(ps) != 1 {
		t.Errorf("in the root container run %+v, %v", ps, err)
	}
}

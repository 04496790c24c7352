package network

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestGCKeepsTheValidAndTheLive(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	valid, lost, cached := n.pod("valid"), n.pod("lost"), n.pod("cached")
	for i, pod := range []Pod{valid, lost, cached} {
		pod.PortMappings[0].HostPort += int32(i)
		n.attach(pod)
	}
	// Known to libcni alone.
	if err := n.records.remove(cached.ID); err != nil {
		t.Fatal(err)
	}
	n.restart()
	live := n.pod("live")
	live.PortMappings[0].HostPort += 10
	n.attach(live)
	if err := n.GC(t.Context(), []Pod{valid}); err != nil {
		t.Fatal(err)
	}
	now := n.holdings()
	for id, want := range map[string]bool{"valid": true, "live": true, "lost": false, "cached": false} {
		if got := has(now, "-"+id+"-eth0"); got != want {
			t.Errorf("pod %s is attached: %v", id, got)
		}
	}
	for _, pod := range []Pod{valid, live} {
		if err := n.Check(t.Context(), pod); err != nil {
			t.Error(err)
		}
	}
	n.restart()
	if err := n.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

func TestGCGoesOnAfterAnError(t *testing.T) {
	n := newNode(t, "1.0.0")
	for i, id := range []string{"good", "bad", "fine"} {
		pod := n.pod(id)
		pod.PortMappings[0].HostPort += int32(i)
		if id == "bad" {
			pod.Annotations = map[string]string{"failcni/DEL": "fail"}
		}
		n.attach(pod)
	}
	n.restart()
	if err := n.GC(t.Context(), nil); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "bad") {
		t.Errorf("got %v", err)
	}
	ids, err := n.records.ids()
	if err != nil || len(ids) != 1 || ids[0] != "bad" {
		t.Errorf("on record are %v, %v", ids, err)
	}
}

func TestGCAsksThePluginsSince110(t *testing.T) {
	for version, want := range map[string]int{"1.0.0": 0, "1.1.0": 1} {
		n := newNode(t, version)
		if err := n.GC(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := n.asked("GC"); got != want {
			t.Errorf("version %s: asked %d times", version, got)
		}
	}
}

// A plugin that hangs in GC must not keep a pod from being attached.
func TestAttachGoesBeforeGC(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.do(map[string]string{"GC": "hang"})
	ended := make(chan error, 1)
	go func() { ended <- n.GC(context.Background(), nil) }()
	eventually(t, "the plugin runs", func() bool { return n.asked("GC") > 0 })
	pod := n.pod("first")
	n.attach(pod)
	if err := <-ended; err != nil {
		t.Errorf("GC that was stopped: %v", err)
	}
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

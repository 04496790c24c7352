package network

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
	if err := n.GC(t.Context(), only(valid)); err != nil {
		t.Fatal(err)
	}
	now := n.holdings()
	for id, want := range map[string]bool{"valid": true, "live": true, "lost": false, "cached": false} {
		if got := has(now, "-"+id+"-eth0"); got != want {
			t.Errorf("pod %s is attached: %v", id, got)
		}
	}
	for _, pod := range []Pod{valid, live} {
		n.check(pod)
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

// killTime is far more than it takes to kill a plugin and its children, and far less
// than the timeout of one that hangs.
const killTime = 5 * time.Second

// A plugin that hangs in GC must not keep a pod from being attached, nor have its
// address taken away when GC goes on.
func TestAttachGoesBeforeGC(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.do(map[string]string{"GC": "hang"})
	ended := make(chan error, 1)
	go func() { ended <- n.GC(context.Background(), only()) }()
	eventually(t, "the plugin runs", func() bool { return n.asked("GC") > 0 })
	pod := n.pod("first")
	began := time.Now()
	n.attach(pod)
	if took := time.Since(began); took > killTime {
		t.Errorf("the pod was attached after %v", took)
	}
	if err := <-ended; !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "try again later") {
		t.Errorf("GC that was stopped: %v", err)
	}
	n.kept(pod)
	n.do(nil)
	if err := n.GC(t.Context(), only()); err != nil {
		t.Errorf("GC again: %v", err)
	}
	n.kept(pod)
}

// GC is at an old pod's DEL, which takes its time, while a new pod is attached. What
// GC knew before is not what it may tell its plugins, nor libcni, which would have the
// new pod's address freed.
func TestGCKeepsAPodThatIsAttachedMeanwhile(t *testing.T) {
	n := newNode(t, "1.1.0")
	old := n.pod("old")
	n.attach(old)
	n.restart()
	n.do(map[string]string{"DEL": "slow:1s"})
	ended := make(chan error, 1)
	go func() { ended <- n.GC(context.Background(), only()) }()
	eventually(t, "the old pod's DEL runs", func() bool { return n.asked("DEL") > 0 })
	pod := n.pod("new")
	pod.PortMappings[0].HostPort++
	n.attach(pod)
	n.do(nil)
	if err := <-ended; err != nil {
		t.Errorf("GC: %v", err)
	}
	n.kept(pod)
	if has(n.holdings(), "-old-eth0") {
		t.Error("the old pod is still attached")
	}
}

// The list of valid pods is made while no pod is being attached, or it could be
// without a pod that is attached when it is used.
func TestGCAsksForTheValidPodsWhileNoneIsAttached(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.do(map[string]string{"ADD": "hang"})
	ctx, cancel := context.WithCancel(t.Context())
	attached := make(chan error, 1)
	pod := n.pod("slow")
	go func() {
		_, err := n.Attach(ctx, pod)
		attached <- err
	}()
	eventually(t, "ADD runs", func() bool { return n.asked("ADD") > 0 })
	if err := n.GC(t.Context(), only()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "being attached") {
		t.Errorf("GC while a pod is attached: %v", err)
	}
	if n.asked("GC")+n.asked("DEL") != 0 {
		t.Error("plugins were asked to collect while a pod was attached")
	}
	cancel()
	<-attached
	n.do(nil)

	var excluded []bool // whether Attach was, when the list was made
	err := n.GC(t.Context(), func() []Pod {
		n.gcLock.mu.Lock()
		defer n.gcLock.mu.Unlock()
		excluded = append(excluded, n.gcLock.plugins != nil)
		return nil
	})
	if err != nil || len(excluded) == 0 || !excluded[len(excluded)-1] {
		t.Errorf("the plugins' list was made while pods could be attached: %v, %v", excluded, err)
	}
}

func TestGCRefusesASecondOne(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.do(map[string]string{"GC": "hang"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.GC(ctx, only()) }()
	eventually(t, "the plugin runs", func() bool { return n.asked("GC") > 0 })
	if err := n.GC(t.Context(), only()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "another") {
		t.Errorf("the second GC: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the first GC: %v", err)
	}
	n.do(nil)
	if err := n.GC(t.Context(), only()); err != nil {
		t.Errorf("GC after both: %v", err)
	}
}

// Detach of a pod that GC is detaching waits for it, and then has nothing to do.
func TestDetachWaitsForGCOfItsPod(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.warm()
	before := n.holdings()
	pod := n.pod("both")
	n.attach(pod)
	n.restart()
	n.do(map[string]string{"DEL": "slow:500ms"})
	asked := n.asked("DEL")
	ended := make(chan error, 1)
	go func() { ended <- n.GC(context.Background(), only()) }()
	eventually(t, "the pod's DEL runs", func() bool { return n.asked("DEL") > asked })
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("GC: %v", err)
	}
	if got := n.asked("DEL") - asked; got != 1 {
		t.Errorf("DEL was run %d times", got)
	}
	n.nothingLeft(before)
}

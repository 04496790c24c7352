package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestAttachAndDetach(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			n := newNode(t, version)
			n.warm()
			before := n.holdings()
			pod := n.pod("roundtrip")
			result := n.attach(pod)

			if len(result.IPs) != 2 || !netip.MustParseAddr(result.IPs[0]).Is4() || !netip.MustParseAddr(result.IPs[1]).Is6() {
				t.Errorf("addresses are %v", result.IPs)
			}
			during := n.holdings()
			for _, part := range []string{"8080", result.IPs[0], result.IPs[1], "veth", "roundtrip"} {
				if !has(during, part) {
					t.Errorf("nothing on the node has %q", part)
				}
			}
			n.check(pod)
			for range 2 {
				if err := n.Detach(t.Context(), Pod{ID: pod.ID}); err != nil {
					t.Fatal(err)
				}
			}
			n.nothingLeft(before)
		})
	}
}

func deleteInterface(t *testing.T, path string) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	link, err := handle.LinkByName(DefaultInterface)
	if err != nil {
		t.Fatal(err)
	}
	if err := handle.LinkDel(link); err != nil {
		t.Fatal(err)
	}
}

// Detach must work from what was saved, whatever has been lost since.
func TestDetachAfterALoss(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *node, Pod){
		"daemon": func(_ *testing.T, n *node, _ Pod) { n.restart() },
		"configuration": func(t *testing.T, n *node, _ Pod) {
			if err := os.RemoveAll(n.confDir); err != nil {
				t.Fatal(err)
			}
		},
		"configuration changed": func(_ *testing.T, n *node, _ Pod) {
			n.configure(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"failcni"}]}`)
		},
		"namespace": func(t *testing.T, _ *node, pod Pod) {
			if err := RemoveNamespace(pod.NetNS); err != nil {
				t.Fatal(err)
			}
		},
		"namespace but for its file": func(t *testing.T, _ *node, pod Pod) {
			if err := unix.Unmount(pod.NetNS, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		},
		"interface": func(t *testing.T, _ *node, pod Pod) { deleteInterface(t, pod.NetNS) },
		"content of the record": func(_ *testing.T, n *node, pod Pod) {
			writeFile(t, n.records.path(pod.ID), "")
		},
		"record": func(t *testing.T, n *node, pod Pod) {
			if err := n.records.remove(pod.ID); err != nil {
				t.Fatal(err)
			}
		},
		"content of the record, and result": func(t *testing.T, n *node, pod Pod) {
			writeFile(t, n.records.path(pod.ID), `{"version":1,"pod`)
			if err := os.RemoveAll(filepath.Join(n.options.CacheDir, "results")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "1.0.0")
			n.warm()
			before := n.holdings()
			pod := n.pod("loss")
			n.attach(pod)
			lose(t, n, pod)
			if err := n.Detach(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			n.nothingLeft(before)
		})
	}
}

// TestDetachAfterTwoLosses: ADD was cut off in its first plugin, before that told a
// result, and so was a first DEL, when the plugin had taken the interface away.
func TestDetachAfterTwoLosses(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	list, err := loadConfig(n.confDir)
	if err != nil {
		t.Fatal(err)
	}
	n.configure(fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"plugins":[%s]}`, n.name, list.Plugins[0].Bytes))
	pod := n.pod("losses")
	n.attach(pod)
	if err := n.records.removeResult(pod.ID); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.options.CacheDir, "results")); err != nil {
		t.Fatal(err)
	}
	a, err := n.records.load(pod.ID)
	if err != nil {
		t.Fatal(err)
	}
	if list, err = parseList(a.Config); err != nil {
		t.Fatal(err)
	}
	ns, err := n.namespaceForDel(list, a.runtimeConf()) // all that the first DEL comes to
	if err != nil {
		t.Fatal(err)
	}
	ns.close()
	deleteInterface(t, pod.NetNS)
	n.restart()
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

func TestAttachRollsBackWhatFailed(t *testing.T) {
	for _, action := range []string{"fail", "fail:11", "garbage", "crash", "flood"} {
		t.Run(action, func(t *testing.T) {
			n := newNode(t, "1.0.0")
			n.warm()
			before := n.holdings()
			n.do(map[string]string{"ADD": action})
			_, err := n.Attach(t.Context(), n.pod("failed"))
			if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "failcni") || !strings.Contains(err.Error(), n.name) {
				t.Errorf("got %v", err)
			}
			n.nothingLeft(before)
		})
	}
}

func TestAttachRollsBackWhatWasCancelled(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	n.do(map[string]string{"ADD": "hang"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	pod, asked := n.pod("cancelled"), n.asked("ADD")
	go func() {
		_, err := n.Attach(ctx, pod)
		ended <- err
	}()
	eventually(t, "the plugin runs", func() bool { return n.asked("ADD") > asked })
	cancel()
	if err := <-ended; !errdefs.IsCanceled(err) {
		t.Errorf("got %v", err)
	}
	n.nothingLeft(before)

	n.do(nil)
	n.attach(pod) // the retry
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

func TestAttachRunsIntoItsTimeout(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	n.timeout = 1 // nanosecond: over before the first plugin
	if _, err := n.Attach(t.Context(), n.pod("late")); !errors.Is(err, context.DeadlineExceeded) || !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("got %v", err)
	}
	n.timeout = patience
	if err := n.GC(t.Context(), nil); err != nil { // its DEL was too late, too
		t.Error(err)
	}
}

// What the undo cannot do stays on record for the next GC.
func TestGCRepeatsARollBackThatFailed(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	n.do(map[string]string{"ADD": "fail:11", "DEL": "fail"})
	_, err := n.Attach(t.Context(), n.pod("stuck"))
	if !errdefs.IsUnavailable(err) || strings.Count(err.Error(), "told to fail") != 2 {
		t.Errorf("got %v", err)
	}
	if err := n.GC(t.Context(), nil); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("GC while DEL fails: %v", err)
	}
	n.do(nil)
	if err := n.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

// A daemon that dies in the middle of ADD leaves a record, and the next one undoes it.
func TestGCUndoesAnAttachThatARestartCutOff(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	n.do(map[string]string{"ADD": "hang"})
	ended := make(chan error, 1)
	pod, asked := n.pod("cutoff"), n.asked("ADD")
	go func() {
		_, err := n.Attach(context.Background(), pod)
		ended <- err
	}()
	eventually(t, "the plugin runs", func() bool { return n.asked("ADD") > asked })
	n.Close()
	if err := <-ended; !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got %v", err)
	}
	if !has(n.holdings(), "cutoff.json") {
		t.Fatal("the pod is not on record")
	}
	n.restart()
	if err := n.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

func TestAttachAgainReplacesTheFirst(t *testing.T) {
	n := newNode(t, "1.0.0")
	n.warm()
	before := n.holdings()
	pod := n.pod("again")
	n.attach(pod)
	once := n.holdings()
	n.restart()
	n.attach(pod)
	if twice := n.holdings(); len(twice) != len(once) {
		t.Errorf("%d things after the first, %d after the second", len(once), len(twice))
	}
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(before)
}

func TestAttachRefuses(t *testing.T) {
	n := newNode(t, "1.0.0")
	if _, err := n.Attach(t.Context(), Pod{ID: "x", NetNS: filepath.Join(t.TempDir(), "none")}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no namespace: %v", err)
	}
	pod := n.pod("x")
	pod.PortMappings[0].Protocol = "icmp"
	if _, err := n.Attach(t.Context(), pod); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad port: %v", err)
	}
	for _, err := range []error{n.Detach(t.Context(), Pod{ID: "../x"}), n.Detach(t.Context(), Pod{ID: ""})} {
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("bad id: %v", err)
		}
	}
	if n.asked("ADD")+n.asked("DEL") != 0 {
		t.Error("a plugin was run")
	}
}

func TestAttachManyPodsAtOnce(t *testing.T) {
	n := newNode(t, "1.1.0")
	n.warm()
	before := n.holdings()
	pods := make([]Pod, 8)
	for i := range pods {
		pods[i] = n.pod(fmt.Sprintf("many%d", i))
		pods[i].PortMappings[0].HostPort += int32(i)
	}
	var (
		mu  sync.Mutex
		ips []string
		wg  sync.WaitGroup
	)
	for _, pod := range pods {
		wg.Go(func() {
			result, err := n.Attach(t.Context(), pod)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ips = append(ips, result.IPs...)
		})
	}
	wg.Wait()
	slices.Sort(ips)
	if ips = slices.Compact(ips); len(ips) != 2*len(pods) {
		t.Errorf("%d different addresses for %d pods", len(ips), len(pods))
	}
	for _, pod := range pods {
		wg.Go(func() {
			if err := n.Detach(t.Context(), pod); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n.nothingLeft(before)
}

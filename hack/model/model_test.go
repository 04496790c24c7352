package model

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/fakenode"
)

// TestDaemonOnTheFakeEngine: many programs, for some seconds or as long as `make soak` says.
func TestDaemonOnTheFakeEngine(t *testing.T) {
	if why := fakenode.Missing(); why != "" {
		t.Skip(why)
	}
	Check(t, Plan{New: fake(mostOnHostNetwork), Steps: 60, Duration: 30 * time.Second, Shrink: 2 * time.Minute})
}

// TestCheckVariantsOnTheFakeEngine: the same programs with restarts of the daemon between
// requests, with user namespaces, with the node's network and without it.
func TestCheckVariantsOnTheFakeEngine(t *testing.T) {
	if why := fakenode.Missing(); why != "" {
		t.Skip(why)
	}
	Check(t, Plan{
		New: fake(mostOnHostNetwork),
		Variants: []Variant{
			{"restarts", fake(mostOnHostNetwork)},
			{"host network", fake(func(_ int, o *runtimeapi.NamespaceOption) { o.Network = runtimeapi.NamespaceMode_NODE })},
			{"user namespace", fake(func(_ int, o *runtimeapi.NamespaceOption) { o.UsernsOptions = UserNamespace() })},
		},
		Steps: 60, Duration: 15 * time.Second, Shrink: 2 * time.Minute,
	})
}

// mostOnHostNetwork are all pods but one: that takes less time.
func mostOnHostNetwork(place int, o *runtimeapi.NamespaceOption) {
	if place > 0 {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
}

// fake makes targets with the engine in memory, whose pods have namespaces so chosen.
func fake(namespaces func(place int, o *runtimeapi.NamespaceOption)) func(testing.TB) (Target, func() error) {
	return func(t testing.TB) (Target, func() error) {
		t.Helper()
		return newFake(t, namespaces)
	}
}

func newFake(t testing.TB, namespaces func(int, *runtimeapi.NamespaceOption)) (Target, func() error) {
	t.Helper()
	n, err := fakenode.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return Target{
		Runtime: n.Client.Runtime, Image: n.Client.Image, Images: n.Images,
		Pod: func(place int) *runtimeapi.PodSandboxConfig {
			cfg := fakePod(n, place)
			namespaces(place, cfg.Linux.SecurityContext.NamespaceOptions)
			return cfg
		},
		Kill: n.Kill, Start: n.Start,
		KillSandbox: func(_ context.Context, id string) error { n.Engine.KillSandbox(id); return nil },
		Left:        n.Left, Own: []string{n.Dir, registryOf(n.Images[0])}, Patience: 2 * time.Second,
	}, n.Close
}

func fakePod(n *fakenode.Node, place int) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("pod%d", place), Namespace: "model", Uid: fmt.Sprint(place)},
		LogDirectory: filepath.Join(n.LogDir(), fmt.Sprint(place)),
		Labels:       map[string]string{"place": fmt.Sprint(place)},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    n.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}},
		},
	}
}

func registryOf(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	return host
}

func TestParseReadsWhatStringWrites(t *testing.T) {
	for seed := range uint64(20) {
		p := Generate(seed, 40)
		q, err := Parse(p.String())
		if err != nil || q.String() != p.String() {
			t.Fatalf("seed %d: %v\n%s", seed, err, q)
		}
	}
	for _, bad := range []string{"fly 0 0 0", "run 0 0", "run 9 0 0", "run 0 0 0 twice", "run a 0 0"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// TestShrinkFindsWhatMatters: of a long program only the two requests are left
// that make it fail.
func TestShrinkFindsWhatMatters(t *testing.T) {
	p := Generate(3, 100)
	p = append(p, Step{Ops: []Op{{Kind: Die, Pod: 1}, {Kind: Pull, Cut: true}}})
	has := func(p Program, k Kind) bool {
		for _, s := range p {
			for _, o := range s.Ops {
				if o.Kind == k {
					return true
				}
			}
		}
		return false
	}
	small := Shrink(t.Context(), p, time.Minute, func(_ context.Context, q Program) bool { return has(q, Die) && has(q, RunPod) })
	if len(small) > 2 || len(small.String()) > 60 {
		t.Errorf("it is still\n%s", small)
	}
}

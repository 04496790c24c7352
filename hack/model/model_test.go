package model

import (
	"context"
	"fmt"
	"path/filepath"
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
	Check(t, Plan{New: newFake, Steps: 60, Duration: 30 * time.Second, Shrink: 2 * time.Minute})
}

func newFake(t testing.TB) (Target, func() error) {
	t.Helper()
	n, err := fakenode.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return Target{
		Runtime: n.Client.Runtime, Image: n.Client.Image, Images: n.Images,
		Pod:  func(place int) *runtimeapi.PodSandboxConfig { return fakePod(n, place) },
		Kill: n.Kill, Start: n.Start,
		KillSandbox: func(_ context.Context, id string) error { n.Engine.KillSandbox(id); return nil },
		Left:        n.Left, Patience: 2 * time.Second,
	}, n.Close
}

// fakePod is the config of a pod; all but one are on the node's network, which
// takes less time.
func fakePod(n *fakenode.Node, place int) *runtimeapi.PodSandboxConfig {
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("pod%d", place), Namespace: "model", Uid: fmt.Sprint(place)},
		LogDirectory: filepath.Join(n.LogDir(), fmt.Sprint(place)),
		Labels:       map[string]string{"place": fmt.Sprint(place)},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: n.CgroupParent},
	}
	if place > 0 {
		cfg.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
	}
	return cfg
}

func TestAProgramIsReadAsItWasWritten(t *testing.T) {
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

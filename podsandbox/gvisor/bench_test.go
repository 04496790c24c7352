package gvisor

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// medians collects durations by step, and reports the median of each.
type medians map[string][]time.Duration

func (m medians) time(step string, f func() error) error {
	start := time.Now()
	err := f()
	m[step] = append(m[step], time.Since(start))
	return err
}

func (m medians) report(b *testing.B) {
	b.ReportMetric(0, "ns/op") // the sum of all steps says nothing
	for step, all := range m {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, step+"-ms")
	}
}

// BenchmarkPod goes through the life of a pod with one container that has the
// mounts a kubelet gives it.
func BenchmarkPod(b *testing.B) {
	e := newTestEngine(b)
	root, vol := newRootfs(b), b.TempDir()
	m := medians{}
	ctx := context.Background()
	for b.Loop() {
		ns := newTestNetNS(b)
		cfg := podConfig(b, ns)
		var s engine.Sandbox
		check := func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		check(m.time("boot", func() (err error) { s, err = e.Boot(ctx, cfg); return err }))
		check(m.time("start-root", func() error { return s.StartRoot(ctx) }))
		spec := shell(root, "echo; exec sleep 1000")
		spec.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"}
		spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind"}})
		r, w, err := os.Pipe()
		check(err)
		c := engine.Container{ID: newID(b), Spec: spec, Stdio: [3]*os.File{e.null, w, w}}
		check(m.time("create", func() error { return s.Create(ctx, c) }))
		check(m.time("start-to-first-byte", func() error {
			if err := m.time("start", func() error { return s.Start(ctx, c) }); err != nil {
				return err
			}
			_, err := r.Read(make([]byte, 1))
			return err
		}))
		for range 5 {
			check(m.time("exec", func() error {
				_, err := s.Exec(ctx, c.ID, engine.Exec{Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}})
				return err
			}))
			check(m.time("stats", func() error { _, err := s.Stats(ctx); return err }))
		}
		check(m.time("destroy", func() error { return s.Destroy(ctx, c.ID) }))
		check(m.time("kill", func() error { return s.Kill(ctx) }))
		r.Close()
		w.Close()
	}
	m.report(b)
}

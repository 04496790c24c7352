package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestRecoverAfterAClockJumped gives a daemon records from the future, as after a clock
// that was set back, and from long ago. Nothing ends before it began, no use is below
// nothing, and containers have the whole of their grace.
func TestRecoverAfterAClockJumped(t *testing.T) {
	for name, at := range map[string]time.Time{"back": time.Now().Add(30 * time.Hour), "ahead": time.Unix(1, 0)} {
		t.Run(name, func(t *testing.T) {
			k := ownNode(t, testenv.Options{})
			id, pod := k.pod()
			graceful := k.shell("graceful", "trap 'sleep 1; echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done")
			cid := k.start(id, pod, graceful)
			k.logHas(pod, graceful, "up")
			created, err := k.create(id, pod, k.shell("created", "exec sleep 600"))
			k.must(err)
			k.must(k.env.Kill())
			for _, pattern := range []string{"*/pod.json", "*/*/container.json"} {
				files, err := filepath.Glob(filepath.Join(k.env.Root, "pods", pattern))
				k.must(err)
				for _, file := range files {
					editRecord(k, file, "createdAt", at.UnixNano())
				}
			}
			editRecord(k, filepath.Join(k.env.Root, "pods", id, cid, "status.json"), "startedAt", at.UnixNano())
			_, err = k.env.Start(k.ctx)
			k.must(err)

			_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: created})
			k.must(err)
			for range 2 { // rates are of two looks
				stats, err := k.runtime().ListContainerStats(k.ctx, &runtimeapi.ListContainerStatsRequest{})
				k.must(err)
				if len(stats.Stats) != 2 {
					t.Errorf("statistics of %d containers", len(stats.Stats))
				}
				for _, s := range stats.Stats {
					if cpu := s.GetCpu(); time.Since(time.Unix(0, cpu.GetTimestamp())).Abs() > time.Hour || cpu.GetUsageNanoCores().GetValue() > 1e12 {
						t.Errorf("statistics: %v", s)
					}
				}
				time.Sleep(1100 * time.Millisecond)
			}
			_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 60})
			k.must(err)
			k.wants(k.log(pod, graceful), "bye")
			_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: created})
			k.must(err)
			for _, id := range []string{cid, created} {
				st := k.status(id)
				if st.CreatedAt != at.UnixNano() || st.StartedAt < st.CreatedAt || st.FinishedAt < st.StartedAt {
					t.Errorf("created %d, started %d, finished %d", st.CreatedAt, st.StartedAt, st.FinishedAt)
				}
			}
			if st := k.status(cid); st.ExitCode != 4 {
				t.Errorf("it was not let to its end: %v", st)
			}
			metrics, err := k.runtime().ListPodSandboxMetrics(k.ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
			k.must(err)
			if len(metrics.PodMetrics) != 1 {
				t.Errorf("metrics of %d pods", len(metrics.PodMetrics))
			}
			k.must(os.RemoveAll(pod.LogDirectory))
			k.must(k.env.Client.RemovePod(k.ctx, id))
			k.must(k.env.Audit(k.ctx))
		})
	}
}

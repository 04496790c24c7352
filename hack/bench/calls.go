package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// execsPerPod is how often each pod of measureCalls execs.
const execsPerPod = 3

// measureCalls takes pods through their lives one after the other, and times each
// call.
func measureCalls(ctx context.Context, o options, t *target) ([]result, error) {
	names := []string{"pod ready", "RunPodSandbox", "CreateContainer", "StartContainer", "ExecSync",
		"StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"}
	m := map[string]*series{}
	for _, n := range names {
		m[n] = &series{}
	}
	// The first pod pays for what is made once, such as the bridge.
	if p, _, err := t.newPod(ctx, o.image, printOnce); err != nil {
		return nil, err
	} else if err := t.removePod(ctx, p); err != nil {
		return nil, err
	}
	rt := t.client.Runtime
	for range o.n {
		p, tm, err := t.newPod(ctx, o.image, printOnce)
		if err != nil {
			return nil, err
		}
		m["pod ready"].add(tm.ready)
		m["RunPodSandbox"].add(tm.run)
		m["CreateContainer"].add(tm.create)
		m["StartContainer"].add(tm.start)
		for range execsPerPod {
			if err := m["ExecSync"].time(func() error { return execTrue(ctx, t, p) }); err != nil {
				return nil, err
			}
		}
		for _, step := range []struct {
			name string
			call func() error
		}{
			{"StopContainer", func() error {
				_, err := rt.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.container, Timeout: 10})
				return err
			}},
			{"RemoveContainer", func() error {
				_, err := rt.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: p.container})
				return err
			}},
			{"StopPodSandbox", func() error {
				_, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
				return err
			}},
			{"RemovePodSandbox", func() error {
				_, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
				return err
			}},
		} {
			if err := m[step.name].time(step.call); err != nil {
				return nil, fmt.Errorf("%s: %w", step.name, err)
			}
		}
	}
	var out []result
	for _, n := range names {
		out = append(out, m[n].result(n))
	}
	return out, nil
}

func execTrue(ctx context.Context, t *target, p pod) error {
	r, err := t.client.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"true"}, Timeout: 30})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %s", r.ExitCode, r.Stderr)
	}
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	return nil
}

// measureChurn takes pods through their lives with several workers at once.
func measureChurn(ctx context.Context, o options, t *target) ([]result, error) {
	workers, err := ints(o.workers)
	if err != nil {
		return nil, err
	}
	var out []result
	for _, w := range workers {
		// Enough pods that the idle workers at the end do not matter.
		pods := max(o.n, 6*w)
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(w)
		begin := time.Now()
		for range pods {
			g.Go(func() error {
				p, _, err := t.newPod(gctx, o.image, printOnce)
				if err != nil {
					return err
				}
				return t.removePod(gctx, p)
			})
		}
		if err := g.Wait(); err != nil {
			return out, err
		}
		rate := float64(pods) / time.Since(begin).Minutes()
		r := single(fmt.Sprintf("pods a minute, %d workers", w), "/min", rate)
		r.N = pods
		out = append(out, r)
	}
	return out, nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
)

// sick sees the container whose probe fails killed and started again, with its last
// words, and its neighbour left alone.
func (w *walk) sick(ctx context.Context) (string, error) {
	p, err := w.run(ctx, "sick", func(p *pod) error {
		if c := p.container("sick"); c.RestartCount < 1 || c.State.Running == nil {
			return errors.New("it was not restarted")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	// 143 by SIGTERM, or 137 by the SIGKILL that follows.
	last := p.container("sick").LastState.Terminated
	if last == nil || last.ExitCode != 137 && last.ExitCode != 143 || p.container("well").RestartCount != 0 {
		return "", fmt.Errorf("last end %+v, neighbour restarted %d times", last, p.container("well").RestartCount)
	}
	if last.Message != "the reason\n" {
		return "", fmt.Errorf("the termination message is %q", last.Message)
	}
	_, err = w.logHas(ctx, "sick", url.Values{"previous": {"true"}}, "fell ill 1")
	return fmt.Sprintf("exit code %d, one restart, termination message %q", last.ExitCode, last.Message), err
}

// steady are the pods that no later step disturbs on its own.
var steady = []string{"app", "private"}

// untouched is what must not change of a pod that nobody touches.
func (w *walk) untouched(ctx context.Context) (map[string]string, error) {
	all, err := w.kubelet.pods(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range steady {
		p := all[name]
		if p == nil {
			return nil, fmt.Errorf("pod %s is gone", name)
		}
		text := p.Status.PodIP
		// A new sandbox begins the count of init containers anew, which only a
		// kubelet that was restarted since admits.
		for _, c := range p.Status.InitContainerStatuses {
			text += fmt.Sprintf(" %s=%s", c.Name, c.ContainerID)
		}
		for _, c := range p.Status.ContainerStatuses {
			text += fmt.Sprintf(" %s=%s/%d", c.Name, c.ContainerID, c.RestartCount)
		}
		out[name] = text
	}
	return out, nil
}

// through checks that the steady pods are ready and the same after what happens.
// The kubelet gets the time to look at them: ten seconds of probes and syncs.
func (w *walk) through(ctx context.Context, happen func() (string, error)) (string, error) {
	before, err := w.untouched(ctx)
	if err != nil {
		return "", err
	}
	out, err := happen()
	if err != nil {
		return out, err
	}
	select {
	case <-ctx.Done():
		return out, ctx.Err()
	case <-time.After(10 * time.Second):
	}
	for _, name := range steady {
		if _, err := w.kubelet.await(ctx, name, ready); err != nil {
			return out, err
		}
	}
	after, err := w.untouched(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = fmt.Errorf("pods have changed\nfrom %v\nto   %v", before, after)
	}
	return out, err
}

func (w *walk) killDaemon(ctx context.Context) (string, error) {
	return w.through(ctx, func() (string, error) {
		if err := w.env.Kill(); err != nil {
			return "", err
		}
		// Long enough for the kubelet to miss it: probes fail to connect.
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
		took, err := w.env.Start(ctx)
		return fmt.Sprintf("away for 3s, ready again after %s; same sandboxes, addresses and containers", steps.Round(took)), err
	})
}

func (w *walk) killSandbox(ctx context.Context) (string, error) {
	sandboxes, err := w.sandboxes(ctx)
	if err != nil {
		return "", err
	}
	old := sandboxes["app"]
	if old == nil {
		return "", errors.New("the pod has no sandbox")
	}
	resp, err := w.env.Client.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: old.Id, Verbose: true})
	if err != nil {
		return "", fmt.Errorf("get status of sandbox: %w", err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil || info.Pid == 0 {
		return "", fmt.Errorf("read pid of sandbox in %q: %v", resp.Info["info"], err)
	}
	if err := syscall.Kill(info.Pid, syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill sandbox process: %w", err)
	}
	var fresh *runtimeapi.PodSandbox
	p, err := w.kubelet.await(ctx, "app", func(p *pod) error {
		sandboxes, err := w.sandboxes(ctx)
		if err != nil {
			return err
		}
		if fresh = sandboxes["app"]; fresh == nil || fresh.Id == old.Id {
			return errors.New("no other sandbox yet")
		}
		return ready(p)
	})
	if err != nil {
		return "", err
	}
	if fresh.Metadata.Attempt != old.Metadata.Attempt+1 {
		return "", fmt.Errorf("attempt %d after %d", fresh.Metadata.Attempt, old.Metadata.Attempt)
	}
	return fmt.Sprintf("attempt %d, address %s; containers restarted %d times", fresh.Metadata.Attempt, p.Status.PodIP, p.container("shell").RestartCount), nil
}

// restartKubelet starts it with other ways to hear of pods and to list them.
func (w *walk) restartKubelet(ctx context.Context) (string, error) {
	return w.through(ctx, func() (string, error) {
		if err := w.kubelet.stop(ctx); err != nil {
			return "", err
		}
		gates := map[string]bool{"PodAndContainerStatsFromCRI": true, "EventedPLEG": true, "CRIListStreaming": true}
		if err := w.kubelet.start(ctx, map[string]any{"featureGates": gates}); err != nil {
			return "", err
		}
		// It goes back to listing, silently, where events do not come.
		return "", poll(ctx, func() error {
			text, err := w.kubelet.get(ctx, "/metrics", nil)
			if err == nil && !regexp.MustCompile(`(?m)^kubelet_evented_pleg_connection_success_count [1-9]`).MatchString(text) {
				err = errors.New("the kubelet has not connected to the stream of events")
			}
			return err
		})
	})
}

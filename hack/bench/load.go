package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// measureLoad makes --pods pods and, while they run, measures what a kubelet asks
// all the time, their memory, and a restart of the daemon.
func measureLoad(ctx context.Context, o options, t *target) ([]result, error) {
	before, err := listProcesses()
	if err != nil {
		return nil, err
	}
	pods, err := t.fill(ctx, o)
	if err != nil {
		return nil, err
	}
	out, err := t.measureQueries(ctx, o)
	if err != nil {
		return out, err
	}
	mem, err := podMemory(before, t.pss, t.daemonPID())
	if err != nil {
		return out, err
	}
	out = append(out, single(fmt.Sprintf("memory a pod (Pss, %d pods)", o.pods), "MiB", mem.pods/float64(o.pods)))
	if mem.daemon > 0 {
		out = append(out, single("memory of the daemon (Pss)", "MiB", mem.daemon))
	}
	if t.kill != nil {
		took, err := t.measureRestart(ctx, pods)
		if err != nil {
			return out, err
		}
		out = append(out, single(fmt.Sprintf("restart with %d pods", o.pods), "ms", float64(took)/float64(time.Millisecond)))
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(5)
	for _, p := range pods {
		g.Go(func() error { return t.removePod(gctx, p) })
	}
	return out, g.Wait()
}

// fill makes the pods, five at a time.
func (t *target) fill(ctx context.Context, o options) ([]pod, error) {
	var mu sync.Mutex
	var pods []pod
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(5)
	for range o.pods {
		g.Go(func() error {
			p, _, err := t.newPod(gctx, o.image, printOnce)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			pods = append(pods, p)
			return nil
		})
	}
	return pods, errors.Join(g.Wait())
}

func (t *target) measureQueries(ctx context.Context, o options) ([]result, error) {
	rt := t.client.Runtime
	queries := []struct {
		name string
		call func() (int, error) // number of items in the answer
	}{
		{"Status", func() (int, error) {
			_, err := rt.Status(ctx, &runtimeapi.StatusRequest{})
			return o.pods, err
		}},
		{"ListPodSandbox", func() (int, error) {
			r, err := rt.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			return len(r.GetItems()), err
		}},
		{"ListContainers", func() (int, error) {
			r, err := rt.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return len(r.GetContainers()), err
		}},
		{"ListContainerStats", func() (int, error) {
			r, err := rt.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
			return len(r.GetStats()), err
		}},
		{"ListPodSandboxStats", func() (int, error) {
			r, err := rt.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return len(r.GetStats()), err
		}},
	}
	var out []result
	for _, q := range queries {
		var s series
		for range o.n {
			err := s.time(func() error {
				n, err := q.call()
				if err == nil && n < o.pods {
					err = fmt.Errorf("answer has %d items for %d pods", n, o.pods)
				}
				return err
			})
			if err != nil {
				return out, fmt.Errorf("%s: %w", q.name, err)
			}
		}
		out = append(out, s.result(fmt.Sprintf("%s, %d pods", q.name, o.pods)))
	}
	return out, nil
}

// measureRestart times from the start of the new daemon until it is ready and
// lists all pods as ready.
func (t *target) measureRestart(ctx context.Context, pods []pod) (time.Duration, error) {
	if err := t.kill(); err != nil {
		return 0, fmt.Errorf("restart: %w", err)
	}
	begin := time.Now()
	if err := t.start(); err != nil {
		return 0, fmt.Errorf("restart: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		t.client.Conn.ResetConnectBackoff()
		err := t.allReady(ctx, pods)
		if err == nil {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("restart: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
}

func (t *target) allReady(ctx context.Context, pods []pod) error {
	s, err := t.client.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range s.GetStatus().GetConditions() {
		if c.Type == runtimeapi.RuntimeReady && !c.Status {
			return errors.New("runtime is not ready")
		}
	}
	r, err := t.client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, i := range r.Items {
		ready[i.Id] = i.State == runtimeapi.PodSandboxState_SANDBOX_READY
	}
	for _, p := range pods {
		if !ready[p.id] {
			return fmt.Errorf("pod %s is not ready", p.id)
		}
	}
	return nil
}

// killDaemon kills the process in pidFile with SIGKILL and waits until it is gone.
func killDaemon(pidFile string) error {
	pid, err := readPID(pidFile)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill daemon %d: %w", pid, err)
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// startDaemon runs command in a shell that it does not wait for.
func startDaemon(command string) error {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	go cmd.Wait()
	return nil
}

func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("read pid: %s holds %q", file, b)
	}
	return pid, nil
}

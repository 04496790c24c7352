package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// rollingPods is how many pods are replaced at once.
const rollingPods = 10

// rolling replaces pods as an update of a Deployment does, all of them at once: new ones
// are made, and the ones before removed when those are ready. It tells how long either
// took. (A static pod that changes under its name would tell of the kubelet alone, which
// waits ten seconds before it makes it again.)
func (w *walk) rolling(ctx context.Context) (string, error) {
	var took []string
	for version := range 3 {
		start := time.Now()
		for i := range rollingPods {
			if err := w.put("rolling", rollingName(i, version), version); err != nil {
				return "", err
			}
		}
		for i := range rollingPods {
			if _, err := w.kubelet.await(ctx, rollingName(i, version), ready); err != nil {
				return "", err
			}
		}
		made := time.Since(start)
		gone, err := w.removeRolling(ctx, version-1)
		if err != nil {
			return "", err
		}
		took = append(took, fmt.Sprintf("version %d: ready after %.1f s, the ones before gone after %.1f s", version, made.Seconds(), gone.Seconds()))
	}
	_, err := w.removeRolling(ctx, 2)
	return strings.Join(took, "\n"), err
}

// removeRolling removes the pods of a version, if there is one, and waits until they have
// ended.
func (w *walk) removeRolling(ctx context.Context, version int) (time.Duration, error) {
	start := time.Now()
	if version < 0 {
		return 0, nil
	}
	for i := range rollingPods {
		if err := os.Remove(filepath.Join(w.kubelet.manifests(), rollingName(i, version)+".yaml")); err != nil {
			return 0, err
		}
	}
	err := poll(ctx, func() error {
		running, err := w.sandboxes(ctx)
		if err != nil {
			return err
		}
		for i := range rollingPods {
			if running[rollingName(i, version)] != nil {
				return fmt.Errorf("pod %s is there", rollingName(i, version))
			}
		}
		return nil
	})
	return time.Since(start), err
}

func rollingName(i, version int) string { return fmt.Sprintf("rolling-%d-%d", version, i) }

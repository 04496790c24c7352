package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rollingPods is how many pods are replaced at once.
const rollingPods = 10

// rollingManifest is a web server as Deployments have it. Its version is in its
// environment, and in its answer.
const rollingManifest = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: default, labels: {version: "%[2]d"}}
spec:
  terminationGracePeriodSeconds: 10
  containers:
  - name: web
    image: %[3]s
    args: ["8080"]
    env: [{name: VERSION, value: "%[2]d"}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
`

// rolling replaces pods as an update of a Deployment does, all of them at once, and
// tells how long it took until the new ones were ready.
func (w *walk) rolling(ctx context.Context) (string, error) {
	var took []string
	for version := range 3 {
		start := time.Now()
		var each []time.Duration
		for i := range rollingPods {
			if err := w.putRolling(i, version); err != nil {
				return "", err
			}
		}
		for i := range rollingPods {
			_, err := w.kubelet.await(ctx, rollingName(i), func(p *pod) error {
				if p.Metadata.Labels["version"] != fmt.Sprint(version) {
					return errors.New("it is the one before")
				}
				return ready(p)
			})
			if err != nil {
				return "", err
			}
			each = append(each, time.Since(start))
		}
		slices.Sort(each)
		took = append(took, fmt.Sprintf("version %d: %d pods ready after %.1f s, the last after %.1f s",
			version, rollingPods/2, each[rollingPods/2].Seconds(), each[rollingPods-1].Seconds()))
	}
	for i := range rollingPods {
		if err := os.Remove(filepath.Join(w.kubelet.manifests(), rollingName(i)+".yaml")); err != nil {
			return "", err
		}
	}
	return strings.Join(took, "\n"), nil
}

func rollingName(i int) string { return fmt.Sprintf("rolling-%d", i) }

func (w *walk) putRolling(i, version int) error {
	name := rollingName(i)
	text := fmt.Sprintf(rollingManifest, name, version, w.env.Images["web"])
	temporary := filepath.Join(w.env.Dir, name+".yaml")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return os.Rename(temporary, filepath.Join(w.kubelet.manifests(), name+".yaml"))
}

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

//go:embed pods/*.yaml
var manifests embed.FS

// walk is what one step leaves for the next.
type walk struct {
	env     *testenv.Env
	kubelet *kubelet
	own     string // nodesOwn at the beginning
}

func (w *walk) steps() []steps.Step {
	return []steps.Step{
		{Title: "start registry and daemon", Do: w.startNode},
		{Title: "start the kubelet", Do: w.startKubelet},
		{Title: "a pod with init container, sidecar, volumes, probes, limits is Ready", Do: w.app},
		{Title: "its volumes, environment and hooks", Do: w.appVolumes},
		{Title: "logs", Do: w.logs},
		{Title: "exec, with stdin, exit code, and on a terminal", Do: w.execs},
		{Title: "attach", Do: w.attach},
		{Title: "port-forward", Do: w.portForward},
		{Title: "a pod with user ids of its own", Do: w.private},
		{Title: "a pod on the node's network runs to its end", Do: w.job},
		{Title: "ten pods are replaced at once, twice", Do: w.rolling},
		{Title: "/stats/summary, /metrics/cadvisor and /metrics/resource", Do: w.stats},
		{Title: "a failed liveness probe restarts one container", Do: w.sick},
		{Title: "kill -9 the daemon and start it again: no pod is touched", Do: w.killDaemon},
		{Title: "kill -9 a sandbox process: the kubelet makes another sandbox", Do: w.killSandbox},
		{Title: "restart the kubelet with EventedPLEG and streamed lists: no pod is touched", Do: w.restartKubelet},
		{Title: "the kubelet removes unused images, not the pinned one", Do: w.imageGC},
		{Title: "remove the manifests: pods end, preStop ran, all is removed", Do: w.removeAll},
		{Title: "stop the kubelet, look for leftovers", Do: w.audit},
		{Title: "stop the daemon, remove bridge and directories", Do: w.end},
	}
}

// close ends everything, also half way. It says what the last words were when a
// step has failed.
func (w *walk) close(failed bool) error {
	if w.env == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var errs []error
	if w.kubelet != nil {
		if failed {
			fmt.Fprintf(os.Stderr, "\nlast lines of the kubelet's log:\n%s\n\nlast lines of the daemon's log:\n%s\n",
				w.kubelet.logTail(40), w.env.LogTail(30))
		}
		errs = append(errs, w.kubelet.stop(ctx), w.note(ctx))
	}
	// It sweeps the mounts and cgroups, too.
	return errors.Join(append(errs, w.env.Close())...)
}

// note makes the environment know the pods that the kubelet made.
func (w *walk) note(ctx context.Context) error {
	resp, err := w.env.Client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, p := range resp.Items {
		w.env.Client.Note(p.Id)
	}
	return nil
}

// startNode sets the node up and starts the daemon on it.
func (w *walk) startNode(ctx context.Context) (string, error) {
	env, err := testenv.New(ctx, testenv.Options{Config: "[images]\npinned_images = [\"*nonroot*\"]\n", DaemonArgs: []string{"--log-level", "2"}})
	if err != nil {
		return "", err
	}
	w.env, w.own = env, nodesOwn()
	if w.kubelet, err = newKubelet(env); err != nil {
		return "", err
	}
	// What is left at the end is compared with now.
	return env.String(), env.MarkBaseline()
}

func (w *walk) startKubelet(ctx context.Context) (string, error) {
	return "API on " + w.kubelet.url("", nil), w.kubelet.start(ctx, nil)
}

// put hands a manifest to the kubelet, as a pod of a name. Of those that come in versions
// it says which one it is.
func (w *walk) put(manifest, name string, version int) error {
	t, err := template.ParseFS(manifests, "pods/"+manifest+".yaml")
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{
		"Name": name, "Version": version, "Busybox": w.env.Images["busybox"], "Web": w.env.Images["web"],
		"Host": w.kubelet.host(), "Registry": w.env.Registry,
	})
	if err != nil {
		return fmt.Errorf("fill manifest: %w", err)
	}
	// Renamed into place: the kubelet watches the directory.
	temporary := filepath.Join(w.env.Dir, name+".yaml")
	if err := os.WriteFile(temporary, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return os.Rename(temporary, filepath.Join(w.kubelet.manifests(), name+".yaml"))
}

// run hands a manifest to the kubelet and waits until good returns nil.
func (w *walk) run(ctx context.Context, name string, good func(*pod) error) (*pod, error) {
	if err := w.put(name, name, 0); err != nil {
		return nil, err
	}
	return w.kubelet.await(ctx, name, good)
}

// sandboxes are those that run, by the names of pods in the manifests.
func (w *walk) sandboxes(ctx context.Context) (map[string]*runtimeapi.PodSandbox, error) {
	resp, err := w.env.Client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	out := map[string]*runtimeapi.PodSandbox{}
	for _, p := range resp.Items {
		if p.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			out[strings.TrimSuffix(p.Metadata.Name, "-"+nodeName)] = p
		}
	}
	return out, nil
}

// wants checks that a text has all the words.
func wants(text string, words ...string) error {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return fmt.Errorf("%q is not in:\n%s", word, text)
		}
	}
	return nil
}

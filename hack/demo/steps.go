package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// webPort is where the pod's web server listens.
const webPort = "8080"

// demo is what one step leaves for the next.
type demo struct {
	env *testenv.Env

	pod     *runtimeapi.PodSandboxConfig
	podFile string
	podID   string
	shell   string // container id
	ip      string
}

func (d *demo) steps() []steps.Step {
	return []steps.Step{
		{Title: "start registry and daemon", Do: d.start},
		{Title: "crictl version", Do: d.crictl("version")},
		{Title: "crictl pull: two images from the registry on loopback", Do: d.pull},
		{Title: "crictl images", Do: d.crictl("images")},
		{Title: "crictl runp: a gVisor sandbox with a network of its own", Do: d.runPod},
		{Title: "crictl create, start: a web server", Do: d.startWeb},
		{Title: "crictl create, start: a shell that prints", Do: d.startShell},
		{Title: "crictl ps", Do: d.crictl("ps")},
		{Title: "crictl exec -s dmesg: the kernel they run on", Do: d.dmesg},
		{Title: "crictl logs", Do: d.logs},
		{Title: "crictl exec -s: both containers share the pod's network", Do: d.exec},
		{Title: "reach the web server by the pod's address from the host", Do: d.fetch},
		{Title: "crictl stats", Do: d.stats},
		{Title: "what the pod holds on the node", Do: d.holdings},
		{Title: "kill -9 the daemon and start it again", Do: d.restart},
		{Title: "the pod serves on, and its log has no gap", Do: d.afterRestart},
		{Title: "crictl stopp, rmp", Do: d.removePod},
		{Title: "crictl rmi", Do: d.removeImages},
		{Title: "look for leftovers of pod and images", Do: d.audit},
		{Title: "stop the daemon, remove bridge and directories", Do: d.end},
	}
}

func (d *demo) crictl(args ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return d.env.Crictl(ctx, args...) }
}

func (d *demo) pull(ctx context.Context) (string, error) {
	var out strings.Builder
	for _, name := range []string{"busybox", "web"} {
		s, err := d.env.Crictl(ctx, "pull", d.env.Images[name])
		out.WriteString(s)
		if err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

// writeConfig writes what crictl reads from a file.
func (d *demo) writeConfig(name string, config any) (string, error) {
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", name, err)
	}
	path := filepath.Join(d.env.Dir, name)
	return path, os.WriteFile(path, b, 0o644)
}

func (d *demo) runPod(ctx context.Context) (string, error) {
	d.pod = d.env.PodConfig("demo")
	var err error
	if d.podFile, err = d.writeConfig("pod.json", d.pod); err != nil {
		return "", err
	}
	out, err := d.env.Crictl(ctx, "runp", d.podFile)
	if err != nil {
		return out, err
	}
	d.podID = strings.TrimSpace(out)
	d.env.Client.Note(d.podID)
	if d.ip, err = d.env.Client.PodIP(ctx, d.podID); err != nil {
		return "", err
	}
	return fmt.Sprintf("pod %.13s has address %s", d.podID, d.ip), nil
}

func (d *demo) startContainer(ctx context.Context, c *runtimeapi.ContainerConfig) (string, error) {
	maps.Copy(c.Labels, d.pod.Labels) // `crictl ps` shows the pod's name by these
	file, err := d.writeConfig(c.Metadata.Name+".json", c)
	if err != nil {
		return "", err
	}
	out, err := d.env.Crictl(ctx, "create", d.podID, file, d.podFile)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(out)
	d.env.Client.Note(d.podID, id)
	_, err = d.env.Crictl(ctx, "start", id)
	return id, err
}

func (d *demo) startWeb(ctx context.Context) (string, error) {
	c := testenv.ContainerConfig("web", d.env.Images["web"])
	_, err := d.startContainer(ctx, c)
	return "", err
}

func (d *demo) startShell(ctx context.Context) (out string, err error) {
	c := testenv.ContainerConfig("shell", d.env.Images["busybox"], "/bin/sh", "-c",
		`echo "hello from $(hostname), $(uname -sr)"; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.2; done`)
	d.shell, err = d.startContainer(ctx, c)
	return "", err
}

func (d *demo) dmesg(ctx context.Context) (string, error) {
	out, err := d.env.Crictl(ctx, "exec", "-s", d.shell, "dmesg")
	if err == nil && !strings.Contains(out, "gVisor") {
		err = fmt.Errorf("the kernel's log does not name gVisor: %q", out)
	}
	return firstLines(out, 5), err
}

func (d *demo) logs(ctx context.Context) (string, error) {
	if _, err := testenv.WaitLog(ctx, filepath.Join(d.pod.LogDirectory, "shell.log"), "line 3\n"); err != nil {
		return "", err
	}
	out, err := d.env.Crictl(ctx, "logs", d.shell)
	if err == nil && !strings.Contains(out, "hello from demo") {
		err = fmt.Errorf("the log lacks its first line: %q", out)
	}
	return firstLines(out, 4), err
}

func (d *demo) exec(ctx context.Context) (string, error) {
	return d.env.Crictl(ctx, "exec", "-s", d.shell, "wget", "-q", "-O", "-", "http://127.0.0.1:"+webPort+"/")
}

func (d *demo) fetch(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	url := "http://" + d.ip + ":" + webPort + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// The environment's proxy does not know the pod.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return "GET " + url + "\n" + string(body), err
}

func (d *demo) stats(ctx context.Context) (string, error) {
	containers, err := d.env.Crictl(ctx, "stats")
	if err != nil {
		return containers, err
	}
	pods, err := d.env.Crictl(ctx, "statsp")
	// crictl clears the screen first.
	return strings.ReplaceAll(containers+pods, "\x1b[2J\x1b[H", ""), err
}

// holdings shows that what the last steps look for is there now: a search that
// finds nothing of a running pod would find no leftover of it either.
func (d *demo) holdings(context.Context) (string, error) {
	o, err := d.env.Observe()
	if err != nil {
		return "", err
	}
	for _, kind := range testenv.Kinds {
		if kind != "chain" && len(o[kind]) == 0 {
			return o.String(), fmt.Errorf("no %s of a running pod is seen", kind)
		}
	}
	return o.String(), nil
}

func (d *demo) restart(ctx context.Context) (string, error) {
	took, err := d.env.Restart(ctx)
	if err != nil {
		return "", err
	}
	return "ready again after " + steps.Round(took).String(), nil
}

// afterRestart fetches the page once more, and reads the numbers in the log: each
// line is there once, over the time without a daemon.
func (d *demo) afterRestart(ctx context.Context) (string, error) {
	page, err := d.fetch(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(d.pod.LogDirectory, "shell.log")
	text, err := testenv.ReadLog(path)
	if err != nil {
		return "", err
	}
	next := strings.Count(text, "\n") + 3
	if text, err = testenv.WaitLog(ctx, path, fmt.Sprintf("line %d\n", next)); err != nil {
		return "", err
	}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n")[1:] {
		if line != fmt.Sprintf("line %d", i+1) {
			return "", fmt.Errorf("line %d of the log reads %q", i+1, line)
		}
	}
	return firstLines(page, 2) + fmt.Sprintf("log: lines 1 to %d, each once", next), nil
}

func (d *demo) removePod(ctx context.Context) (string, error) {
	out, err := d.env.Crictl(ctx, "stopp", d.podID)
	if err != nil {
		return out, err
	}
	more, err := d.env.Crictl(ctx, "rmp", d.podID)
	return out + more, err
}

func (d *demo) removeImages(ctx context.Context) (string, error) {
	return d.env.Crictl(ctx, "rmi", d.env.Images["busybox"], d.env.Images["web"])
}

func (d *demo) audit(ctx context.Context) (string, error) {
	if err := d.env.Audit(ctx); err != nil {
		return "", err
	}
	return "no process, mount, netns, link, address, rule, cgroup, pipe, file or layer of it", nil
}

func (d *demo) end(context.Context) (string, error) { return d.env.End() }

func firstLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[:min(n, len(lines))], "")
}

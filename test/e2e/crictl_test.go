package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// crictl runs the real crictl and returns what it printed.
func (k kit) crictl(args ...string) string {
	k.Helper()
	out, err := k.env.Crictl(k.ctx, args...)
	if err != nil {
		k.Fatalf("crictl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func jsonFile(k kit, name string, m any) string {
	k.Helper()
	data, err := json.Marshal(m) // crictl reads the names of the Go structs' tags
	k.must(err)
	path := filepath.Join(k.TempDir(), name)
	k.must(os.WriteFile(path, data, 0o600))
	return path
}

// lastLine is where crictl prints ids, after its warnings.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func TestCrictl(t *testing.T) {
	k := newKit(t)
	image := k.env.Images["busybox"]
	k.crictl("rmi", image)
	k.wants(k.crictl("pull", image), "sha256:")
	k.must(k.env.MarkBaseline()) // its layers have other names now
	k.wants(k.crictl("images"), strings.Split(image, ":")[1][:4])
	k.wants(k.crictl("inspecti", image), "sha256:", `"PATH=/bin"`)

	pod := k.env.PodConfig("crictl")
	podFile := jsonFile(k, "pod.json", pod)
	ctrFile := jsonFile(k, "ctr.json", k.shell("main", "echo hello from crictl; exec sleep 600"))
	podID := lastLine(k.crictl("runp", podFile))
	k.env.Client.Note(podID)
	ctrID := lastLine(k.crictl("create", podID, ctrFile, podFile))
	k.crictl("start", ctrID)
	k.logHas(pod, k.shell("main", ""), "hello from crictl")

	k.wants(k.crictl("pods"), podID[:13], "Ready", "crictl")
	k.wants(k.crictl("ps"), ctrID[:13], "Running", "main")
	k.wants(k.crictl("logs", ctrID), "hello from crictl")
	if got := k.crictl("exec", "-s", ctrID, "echo", "synchronous"); !strings.Contains(got, "synchronous") {
		t.Errorf("exec -s printed %q", got)
	}
	var stats struct {
		Stats []struct {
			CPU    map[string]any `json:"cpu"`
			Memory map[string]any `json:"memory"`
		} `json:"stats"`
	}
	k.must(json.Unmarshal([]byte(k.crictl("stats", "-o", "json", ctrID)), &stats))
	if len(stats.Stats) != 1 || stats.Stats[0].CPU == nil || stats.Stats[0].Memory == nil {
		t.Errorf("stats = %+v", stats)
	}
	k.wants(k.crictl("inspect", ctrID), "CONTAINER_RUNNING", ctrID)
	k.wants(k.crictl("inspectp", podID), "SANDBOX_READY", k.env.Subnet.Addr().String()[:5])
	k.wants(k.crictl("info"), "NetworkReady", "RuntimeReady")
	k.wants(k.crictl("imagefsinfo"), k.env.Root)
	k.wants(k.crictl("version"), "cri-sandbox")

	k.crictl("stop", ctrID)
	k.wants(k.crictl("ps", "-a"), "Exited")
	k.crictl("rm", ctrID)
	k.crictl("stopp", podID)
	k.wants(k.crictl("pods"), "NotReady")
	k.crictl("rmp", podID)
	if out := k.crictl("pods", "-q"); strings.Contains(out, podID) {
		t.Errorf("the pod is still listed: %s", out)
	}
}

// TestCrictlEvents: what `crictl events` prints while a pod lives and dies.
func TestCrictlEvents(t *testing.T) {
	k := newKit(t)
	cmd := exec.Command(filepath.Join(k.env.Repo, "bin", "crictl"), "--runtime-endpoint", k.env.Endpoint,
		"events", "-o", "go-template", "--template", "{{.containerEventType}} {{.containerId}}")
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	k.must(cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	// It does not say when it listens: a pod is made until one is seen.
	for deadline := time.Now().Add(limit); out.String() == ""; {
		if time.Now().After(deadline) {
			t.Fatal("no event was printed")
		}
		id, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("events"))
		k.must(err)
		k.must(k.env.Client.RemovePod(k.ctx, id))
	}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exit 3"))
	for _, event := range []string{"CREATED", "STARTED", "STOPPED"} {
		out.wait(k, "CONTAINER_"+event+"_EVENT "+cid)
	}
}

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestUpgradeUnderRunningPods exchanges the daemon's program, and with it that of the
// sandboxes, under running pods: once to a later version, by SIGTERM, and once
// back, by SIGKILL.
func TestUpgradeUnderRunningPods(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	later := buildLater(t)
	id, pod := k.pod()
	counter := k.shell("counter", `trap "echo bye; exit 3" TERM; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.01; done`)
	counterID := k.start(id, pod, counter)
	createdID, err := k.create(id, pod, k.shell("created", "echo started; exec sleep 600"))
	k.must(err)
	k.logHas(pod, counter, "line 1\n")
	old := programOf(k, id)

	k.must(k.env.Stop(k.ctx))
	k.env.Use(later)
	_, err = k.env.Start(k.ctx)
	k.must(err)
	v, err := k.runtime().Version(k.ctx, &runtimeapi.VersionRequest{})
	k.must(err)
	if v.RuntimeVersion != laterVersion {
		t.Fatalf("the daemon is of version %q", v.RuntimeVersion)
	}
	if got := programOf(k, id); got != old {
		t.Errorf("the running pod's program is %s, was %s", got, old)
	}
	if got := k.exec(counterID, "echo in the old pod"); got != "in the old pod\n" {
		t.Errorf("exec printed %q", got)
	}
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: createdID})
	k.must(err)
	if out := k.run(id, pod, k.shell("new", "echo new in old")); out != "new in old\n" {
		t.Errorf("a new container in the old pod printed %q", out)
	}
	newID, newPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Attempt = 1 })
	inNew := k.start(newID, newPod, k.shell("c", "exec sleep 600"))
	if got := programOf(k, newID); got == old {
		t.Errorf("a new pod runs the old program %s", got)
	}

	k.must(k.env.Kill())
	k.env.Use("")
	_, err = k.env.Start(k.ctx)
	k.must(err)
	k.exec(inNew, "true")
	if n := len(stagedPrograms(k)); n != 2 {
		t.Errorf("%d programs are staged while pods run both", n)
	}
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: counterID, Timeout: 30})
	k.must(err)
	if st := k.wait(counterID); st.ExitCode != 3 {
		t.Errorf("the container of the first daemon: %v", st)
	}
	lines := strings.Split(strings.TrimSpace(k.log(pod, counter)), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != fmt.Sprintf("line %d", i+1) {
			t.Fatalf("line %d reads %q", i+1, line)
		}
	}
	if last := lines[len(lines)-1]; last != "bye" {
		t.Errorf("the last line is %q", last)
	}
	k.must(k.env.Client.RemoveAll(k.ctx))
	_, err = k.env.Restart(k.ctx)
	k.must(err)
	if left := stagedPrograms(k); len(left) != 1 {
		t.Errorf("programs that nobody runs stay: %v", left)
	}
	k.must(k.env.Audit(k.ctx))
}

const laterVersion = "99.0.0-later"

// buildLater builds the daemon with another version and another sandbox program:
// the same with a few bytes at its end, which nothing looks at.
func buildLater(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	embedded := filepath.Join(node.Repo, "podsandbox", "gvisor", "embedded", "cri-sandbox-sentry")
	program, err := os.ReadFile(embedded)
	if err != nil {
		t.Fatal(err)
	}
	program = append(program, "later version\n"...)
	overlay := map[string]string{embedded: filepath.Join(dir, "sentry"), embedded + ".sha256": filepath.Join(dir, "hash")}
	index, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"sentry": program, "hash": fmt.Appendf(nil, "%x", sha256.Sum256(program)), "overlay.json": index,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "cri-sandbox")
	cmd := exec.Command("go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"),
		"-ldflags", "-X main.version="+laterVersion, "-o", out, "./cmd/cri-sandbox")
	cmd.Dir = node.Repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a later version: %v\n%s", err, out)
	}
	return out
}

// programOf names the file that a pod's sandbox runs.
func programOf(k kit, podID string) string {
	k.Helper()
	rec, err := readPodRecord(k.env, podID)
	k.must(err)
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", rec.Process.PID))
	k.must(err)
	return path
}

func stagedPrograms(k kit) []string {
	k.Helper()
	files, err := filepath.Glob(filepath.Join(k.env.Root, "bin", "*"))
	k.must(err)
	return files
}

// TestUpgradeStartsOnEarlierRecords gives a daemon the records of each version
// that there was, as a node has them after an upgrade and a reboot, or an upgrade
// during which all sandboxes ended.
func TestUpgradeStartsOnEarlierRecords(t *testing.T) {
	versions, err := filepath.Glob(filepath.Join(node.Repo, "podsandbox", "state", "record", "testdata", "v*"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("golden records: %v, %v", versions, err)
	}
	for _, version := range versions {
		for _, rebooted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, rebooted %v", filepath.Base(version), rebooted), func(t *testing.T) {
				startOn(t, version, rebooted)
			})
		}
	}
}

func startOn(t *testing.T, version string, rebooted bool) {
	k := ownNode(t, testenv.Options{NoImages: true})
	k.must(k.env.Kill())
	k.must(os.CopyFS(filepath.Join(k.env.Root, "pods"), os.DirFS(version)))
	records, err := filepath.Glob(filepath.Join(k.env.Root, "pods", "*", "status.json"))
	k.must(err)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	k.must(err)
	if !rebooted {
		for _, file := range records {
			editRecord(k, file, "bootID", string(bytes.TrimSpace(boot)))
		}
	}
	_, err = k.env.Start(k.ctx)
	k.must(err)

	pods, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{})
	k.must(err)
	if len(pods.Items) != len(records) {
		t.Errorf("%d pods are listed, there are %d records", len(pods.Items), len(records))
	}
	for _, p := range pods.Items {
		if p.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || p.Metadata.Name != "golden" || p.Labels["app"] != "golden" {
			t.Errorf("pod: %v", p)
		}
		k.env.Client.Note(p.Id)
	}
	ctrs, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{})
	k.must(err)
	if len(ctrs.Containers) != 3*len(records) {
		t.Errorf("%d containers are listed, want %d", len(ctrs.Containers), 3*len(records))
	}
	var names []string
	for _, c := range ctrs.Containers {
		names = append(names, c.Metadata.Name)
		st := k.status(c.Id)
		if st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			t.Errorf("container: %v", st)
		}
		if c.Metadata.Name == "exited" && (st.ExitCode != 137 || st.Reason != "OOMKilled") {
			t.Errorf("an end of before is now %v", st)
		}
	}
	if !slices.Contains(names, "exited") {
		t.Errorf("containers are %v", names)
	}
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(k.env.Audit(k.ctx))
}

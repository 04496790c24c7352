package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

const otherBoot = "00000000-0000-0000-0000-000000000000"

// TestRecoverAfterAReboot: every pod is NotReady, its containers have ended without a
// known status, its address is free, and it can be removed. What was under way is
// finished, and the same pod runs again as the next attempt.
func TestRecoverAfterAReboot(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	running := k.start(id, pod, k.shell("running", "echo up; exec sleep 600"))
	exited := k.start(id, pod, k.shell("exited", "exit 42"))
	k.wait(exited)
	created, err := k.create(id, pod, k.shell("created", "true"))
	k.must(err)
	phases := map[lifecycle.Phase]string{}
	for _, ph := range []lifecycle.Phase{lifecycle.Creating, lifecycle.Stopping, lifecycle.Removing, lifecycle.Dead} {
		phases[ph], pod = k.pod()
		k.start(phases[ph], pod, k.shell("c", "exec sleep 600"))
	}
	k.must(k.env.Kill())
	for ph, id := range phases {
		editRecord(k, filepath.Join(k.env.Root, "pods", id, "status.json"), "phase", ph)
	}
	rebootNode(k)
	_, err = k.env.Start(k.ctx)
	k.must(err)

	for _, id := range []string{id, phases[lifecycle.Stopping], phases[lifecycle.Dead]} {
		r, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		k.must(err)
		if r.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("pod %s: %v", id, r.Status)
		}
	}
	for _, ph := range []lifecycle.Phase{lifecycle.Creating, lifecycle.Removing} {
		k.eventually("the pod that was "+string(ph)+" is gone", func() bool {
			_, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: phases[ph]})
			return err != nil
		})
	}
	for _, cid := range []string{running, created} {
		st := k.status(cid)
		if st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.Reason != "ContainerStatusUnknown" || st.ExitCode != 255 || st.FinishedAt == 0 {
			t.Errorf("container %s: %v", st.Metadata.Name, st)
		}
	}
	if st := k.status(exited); st.ExitCode != 42 || st.Reason != "Error" {
		t.Errorf("the one that had ended before: %v", st)
	}
	k.eventually("pods of another boot hold nothing", func() bool {
		o, err := k.env.Observe()
		k.must(err)
		held := slices.DeleteFunc(o.Since(k.env.Baseline()), func(item string) bool {
			kind, _, _ := strings.Cut(item, ":")
			return !slices.Contains([]string{"process", "mount", "link", "lease", "rule", "chain", "cgroup"}, kind)
		})
		return len(held) == 0
	})
	next := k.env.PodConfig("next")
	nextID, err := k.env.Client.RunPod(k.ctx, next)
	k.must(err)
	if out := k.run(nextID, next, k.shell("again", "echo again")); out != "again\n" {
		t.Errorf("after the reboot: %q", out)
	}
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(k.env.Audit(k.ctx))
}

// rebootNode does to a node without a daemon what a reboot does: nothing runs,
// nothing is mounted, no namespace and no cgroup is left, what lies on a tmpfs is
// gone, and the kernel has another boot id, which is had by giving the records one.
func rebootNode(k kit) {
	k.Helper()
	o, err := k.env.Observe()
	k.must(err)
	for _, p := range o["process"] {
		pid, _, _ := strings.Cut(p, " ")
		killPID(k, pid)
	}
	for o["process"] = nil; ; time.Sleep(5 * time.Millisecond) {
		now, err := k.env.Observe()
		k.must(err)
		if len(now["process"]) == 0 {
			break
		}
	}
	for _, m := range slices.Backward(o["mount"]) {
		k.must(unix.Unmount(m, unix.MNT_DETACH))
	}
	for _, dir := range slices.Backward(o["cgroup"]) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			k.Fatal(err)
		}
	}
	entries, err := os.ReadDir(k.env.State)
	k.must(err)
	for _, e := range entries {
		k.must(os.RemoveAll(filepath.Join(k.env.State, e.Name())))
	}
	records, err := filepath.Glob(filepath.Join(k.env.Root, "pods", "*", "status.json"))
	k.must(err)
	for _, file := range records {
		editRecord(k, file, "bootID", otherBoot)
	}
	k.must(os.WriteFile(filepath.Join(k.env.Root, "images", "boot"), []byte(otherBoot), 0o600))
}

// editRecord sets one field of a file and leaves the others as they are.
func editRecord(k kit, file, field string, value any) {
	k.Helper()
	var fields map[string]json.RawMessage
	k.must(readJSON(file, &fields))
	raw, err := json.Marshal(value)
	k.must(err)
	fields[field] = raw
	raw, err = json.Marshal(fields)
	k.must(err)
	k.must(os.WriteFile(file, raw, 0o600))
}

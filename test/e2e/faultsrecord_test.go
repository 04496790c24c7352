package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// damages are what a file may have become that was being written when power failed.
var damages = map[string]func([]byte) []byte{
	"empty":        func([]byte) []byte { return nil },
	"half":         func(b []byte) []byte { return b[:len(b)/2] },
	"nearly whole": func(b []byte) []byte { return b[:len(b)-1] },
	"zeros":        func(b []byte) []byte { return make([]byte, len(b)) },
	"garbage tail": func(b []byte) []byte { return append(bytes.Clone(b), "\x00}{\"phase\""...) },
}

// TestRecordsThatAreDamaged cuts each file of a record off, in each way, under a daemon
// that is away. The next one starts, says what is damaged, and does not touch other
// pods. What it cannot know any more does not run on and is not left on the node: the
// caller makes another in its place, which must be alone.
func TestRecordsThatAreDamaged(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "other" })
	otherID := k.start(other, otherPod, k.shell("a", "exec sleep 600"))
	shared := t.TempDir()
	k.must(os.Chmod(shared, 0o777))
	type victim struct {
		file, how, pod, ctr, stays, beat string
	}
	var victims []victim
	for _, file := range []string{"pod.json", "status.json", "*/container.json", "*/status.json", "*/spec.json"} {
		for how := range damages {
			name := fmt.Sprint(len(victims))
			pod := k.env.PodConfig("victim-" + name)
			id, err := k.env.Client.RunPod(k.ctx, pod)
			k.must(err)
			v := victim{file: file, how: how, pod: id, beat: filepath.Join(shared, name)}
			v.ctr = k.start(id, pod, k.shell("a", fmt.Sprintf("while :; do echo x >> /vol/%s; sleep 0.1; done", name), func(c *runtimeapi.ContainerConfig) {
				c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: shared}}
			}))
			v.stays = k.start(id, pod, k.shell("stays", "exec sleep 600"))
			victims = append(victims, v)
		}
	}
	k.must(k.env.Kill())
	for _, v := range victims {
		path := filepath.Join(k.env.Root, "pods", v.pod, strings.Replace(v.file, "*", v.ctr, 1))
		data, err := os.ReadFile(path)
		k.must(err)
		k.must(os.WriteFile(path, damages[v.how](data), 0o600))
	}
	_, err := k.env.Start(k.ctx)
	k.must(err)
	k.exec(otherID, "true")
	log := readFile(k, k.env.LogFile())
	time.Sleep(time.Second) // for what should have ended to show that it has not
	sizes := map[string]int64{}
	for _, v := range victims {
		sizes[v.pod] = sizeOf(k, v.beat)
	}
	time.Sleep(time.Second)
	for _, v := range victims {
		t.Run(v.file+" "+v.how, func(t *testing.T) {
			k := newKitOn(t, k.env)
			if now := sizeOf(k, v.beat); (now > sizes[v.pod]) != (v.file == "*/spec.json") {
				t.Errorf("what it ran wrote %d bytes, %d before", now, sizes[v.pod])
			}
			damagedIs(k, v.file, v.pod, v.ctr, v.stays)
			gone := map[string]string{"pod.json": v.pod, "*/container.json": v.ctr}[v.file]
			if gone != "" {
				if _, err := os.Stat(filepath.Join(k.env.Root, "pods", ".damaged", gone)); err != nil {
					t.Errorf("it was not set aside: %v", err)
				}
				k.eventually("nothing of it is left", func() bool { return len(leftOf(k, gone)) == 0 })
			}
			if v.file != "*/spec.json" && !strings.Contains(log, toldOf(k.env.Root, gone, v.pod, v.ctr, v.file)) {
				t.Error("the log does not say it")
			}
		})
	}
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(os.RemoveAll(filepath.Join(k.env.Root, "pods", ".damaged"))) // for an operator
	k.must(k.env.Audit(k.ctx))
}

// leftOf is what there is of a pod or container whose record is gone.
func leftOf(k kit, id string) (left []string) {
	k.Helper()
	o, err := k.env.Observe()
	k.must(err)
	for _, kind := range []string{"process", "mount", "cgroup", "state", "rootfs"} {
		for _, item := range o[kind] {
			if strings.Contains(item, id) {
				left = append(left, kind+" "+item)
			}
		}
	}
	return left
}

// damagedIs checks what callers are told of a pod with a damaged file.
func damagedIs(k kit, file, pod, ctr, stays string) {
	k.Helper()
	ps, perr := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	cs, cerr := k.runtime().ContainerStatus(k.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
	ready := perr == nil && ps.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	unknown := cs.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && cs.GetStatus().GetReason() == "ContainerStatusUnknown"
	var right bool
	switch file {
	case "pod.json":
		right = perr != nil && cerr != nil
	case "status.json":
		right = perr == nil && !ready && unknown && strings.Contains(cs.GetStatus().GetMessage(), "status of the pod was lost")
	case "*/container.json":
		right = ready && cerr != nil
	case "*/status.json":
		right = ready && unknown
	case "*/spec.json":
		right = ready && cs.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
		_, err := k.env.Client.Exec(k.ctx, ctr, "true")
		if err == nil || !strings.Contains(err.Error(), "read container spec") {
			k.Errorf("exec without a spec: %v", err)
		}
	}
	if !right {
		k.Errorf("pod %v, %v; container %v, %v", ps.GetStatus(), perr, cs.GetStatus(), cerr)
	}
	if ready {
		k.exec(stays, "true")
	}
}

// toldOf is what the log says of a damaged file.
func toldOf(root, gone, pod, ctr, file string) string {
	switch {
	case gone != "":
		return "it was set aside in " + filepath.Join(root, "pods", ".damaged", gone)
	case strings.HasPrefix(file, "*"):
		return "the status of container " + ctr + " was lost"
	}
	return "the status of pod " + pod + " was lost"
}

func sizeOf(k kit, path string) int64 {
	k.Helper()
	fi, err := os.Stat(path)
	k.must(err)
	return fi.Size()
}

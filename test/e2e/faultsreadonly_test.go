package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestDiskThatIsReadOnlyHoldsUpNoEnd: a node whose disk has become read-only can be
// drained. Containers end with their grace, or for their memory limit, and pods are
// stopped, and are reported so; the answer is the error of the disk, at each try, since
// the address is given back only on record. When the disk can be written to again, the
// next try finishes.
func TestDiskThatIsReadOnlyHoldsUpNoEnd(t *testing.T) {
	k := nodeOnDisk(t, records, "size=16m")
	other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "other" })
	otherID := k.start(other, otherPod, k.shell("a", "exec sleep 600"))
	greedy := k.start(other, otherPod, k.shell("greedy", "while [ ! -e /go ]; do sleep 0.02; done; "+eat(2000), withResources(memory(64))))
	id, pod := k.pod()
	polite := k.shell("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
	politeID := k.start(id, pod, polite)
	k.logHas(pod, polite, "up")
	removed := k.start(id, pod, k.shell("removed", "exec sleep 600"))
	killed := k.start(id, pod, k.shell("killed", "exec sleep 600"))
	onHost, hostPod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Metadata.Name = "on-host"
		p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
	})
	hostID := k.start(onHost, hostPod, k.shell("a", "exec sleep 600"))
	pids := []string{sandboxPID(k, id), sandboxPID(k, onHost)}
	ip, err := k.env.Client.PodIP(k.ctx, id)
	k.must(err)

	setReadOnly(k, records(k.env))
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: politeID, Timeout: 30})
	k.must(err)
	k.ended(politeID, 7)
	_, err = k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: removed})
	k.refused(err, codes.FailedPrecondition, "read-only")
	k.ended(removed, 137)
	if st := k.status(killed); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("what nobody asked to end: %v", st)
	}
	k.exec(greedy, "touch /go")
	limitsKit{k}.wantsAloneKilled(other, greedy)

	stop := func() {
		t.Helper()
		for _, pod := range []string{id, onHost} {
			_, err := k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
			k.refused(err, codes.FailedPrecondition, "read-only")
			k.notReady(pod)
		}
		k.ended(killed, 137)
		k.ended(hostID, 137)
		for _, pid := range pids {
			if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
				t.Errorf("sandbox process %s runs on", pid)
			}
		}
		if _, err := os.Stat(filepath.Join(k.env.LeaseDir, k.env.Name, ip)); err != nil {
			t.Errorf("the address was given back without a record: %v", err)
		}
	}
	stop()
	stop()
	_, err = k.runtime().RemovePodSandbox(k.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	k.refused(err, codes.FailedPrecondition, "read-only")
	_, err = k.env.Restart(k.ctx) // it reads that all of them run
	k.must(err)
	stop()
	k.exec(otherID, "true")

	setWritable(k, records(k.env))
	k.must(k.env.Client.RemovePod(k.ctx, id))
	k.must(k.env.Client.RemovePod(k.ctx, onHost))
	k.exec(otherID, "true")
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(k.env.Audit(k.ctx))
}

// ended checks that a container is reported as ended now, with this exit code.
func (k kit) ended(id string, code int32) {
	k.Helper()
	if st := k.status(id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != code {
		k.Errorf("want an end with %d, the container is: %v", code, st)
	}
}

// TestDiskThatBreaksDown, with root and logs on it, as ext4 does after an error:
// what runs is listed and can be entered, and ends when it is asked to. The daemon
// does not start there, and says why. With layers in the sandbox, whose contents were
// on that disk, the first container to end there takes its pod along: gVisor gives up
// when it cannot free a layer's blocks (pkg/sentry/pgalloc, releaserDestroyLocked).
func TestDiskThatBreaksDown(t *testing.T) {
	t.Run("layers on the host", func(t *testing.T) { aDiskThatBreaksDown(t, "host") })
	t.Run("layers in the sandbox", func(t *testing.T) { aDiskThatBreaksDown(t, "sandbox") })
}

func aDiskThatBreaksDown(t *testing.T, layer string) {
	image, config := filepath.Join(t.TempDir(), "disk"), "[containers]\nwritable_layer = \""+layer+"\"\n"
	k := nodeOnMount(t, testenv.Options{Config: config}, func(k kit) { mountLoop(k, image) })
	pod := k.env.PodConfig("a") // its daemon will not be there to remove it
	id, err := k.env.Client.RunPod(k.ctx, pod)
	k.must(err)
	polite := k.shell("polite", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
	politeID := k.start(id, pod, polite)
	k.logHas(pod, polite, "up")
	stays := k.start(id, pod, k.shell("stays", "exec sleep 600"))
	pid := sandboxPID(k, id)
	breakDown(k, image)

	list, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{})
	k.must(err)
	if len(list.Items) != 1 || list.Items[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the pods are %v", list.Items)
	}
	k.exec(stays, "true; cat /etc/passwd; ! echo x 2>/dev/null > /new; true")
	// Far less than would be waited for a disk that is only full.
	ctx, cancel := context.WithTimeout(k.ctx, 20*time.Second)
	defer cancel()
	_, err = k.runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: politeID, Timeout: 10})
	k.must(err)
	if layer == "host" {
		k.ended(politeID, 7)
	} else if st := k.status(politeID); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 7 && st.ExitCode != 137 {
		k.Errorf("the container that was stopped is: %v", st)
	}
	_, err = k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.refused(err, codes.FailedPrecondition, "read-only")
	k.ended(stays, 137)
	k.notReady(id)
	if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
		t.Errorf("sandbox process %s runs on", pid)
	}

	k.must(k.env.Kill())
	if _, err := k.env.Start(k.ctx); err == nil {
		t.Error("a daemon started on a read-only root")
	}
	k.wants(k.env.LogTail(1), "--root "+k.env.Root+" is on a read-only file system")
}

// mountLoop puts root and logs of a node on an ext4 file system in a file, which
// fails as a real one does. The test is skipped where the machine gives no loop device.
func mountLoop(k kit, image string) {
	k.Helper()
	k.must(os.WriteFile(image, nil, 0o600))
	k.must(os.Truncate(image, 256<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		k.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	base := filepath.Join(k.env.Dir, "disk")
	k.must(os.Mkdir(base, 0o755))
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", image, base).CombinedOutput(); err != nil {
		k.Skipf("no loop device: %v: %s", err, out)
	}
	for name, at := range map[string]string{"root": k.env.Root, "logs": k.env.LogDir} {
		k.must(os.Mkdir(filepath.Join(base, name), 0o755))
		k.must(unix.Mount(filepath.Join(base, name), at, "", unix.MS_BIND, ""))
	}
}

// breakDown makes the file system find an error in itself, upon which it becomes
// read-only under the feet of those who have files open.
func breakDown(k kit, image string) {
	k.Helper()
	loop, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", image).Output()
	k.must(err)
	trigger := "/sys/fs/ext4/" + filepath.Base(strings.TrimSpace(string(loop))) + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("x"), 0); err != nil {
		k.Skip(err)
	}
}

// TestLogsWaitForTheDiskAfterTheEnd: what a container printed last on a full disk is in
// its log when there is space again, although its end was told before.
func TestLogsWaitForTheDiskAfterTheEnd(t *testing.T) {
	opts := testenv.Options{Config: "[timeouts]\nsandbox = \"3s\"\n"} // after which the end is told
	k := nodeOnMount(t, opts, func(k kit) { k.must(unix.Mount("tmpfs", k.env.LogDir, "tmpfs", 0, "size=1m")) })
	id, pod := k.pod()
	c := k.shell("a", "echo up; while [ ! -e /go ]; do sleep 0.02; done; head -c 100000 /dev/zero | tr '\\0' x; echo; echo last words")
	a := k.start(id, pod, c)
	k.logHas(pod, c, "up")
	free := fillDisk(k, k.env.LogDir)
	k.exec(a, "touch /go")
	k.wait(a)
	free()
	k.logHas(pod, c, "last words")
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(k.env.Audit(k.ctx))
}

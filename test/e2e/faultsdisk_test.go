package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// nodeOnDisk is a node that has one of its directories on a small disk of its own.
func nodeOnDisk(t *testing.T, directory func(*testenv.Env) string, options string) kit {
	t.Helper()
	return nodeOnMount(t, testenv.Options{}, func(k kit) {
		k.must(os.MkdirAll(directory(k.env), 0o755))
		k.must(unix.Mount("tmpfs", directory(k.env), "tmpfs", 0, options))
	})
}

// nodeOnMount is a node below whose directory mount has mounted something.
func nodeOnMount(t *testing.T, opts testenv.Options, mount func(kit)) kit {
	t.Helper()
	opts.NoStart = true
	k := emptyNode(t, opts)
	mount(k) // Close unmounts it: a sandbox may have a copy of the mount by then
	_, err := k.env.Start(k.ctx)
	k.must(err)
	k.must(pullAll(k.ctx, k.env))
	k.must(k.env.Client.RemovePod(k.ctx, must(k.env.Client.RunPod(k.ctx, k.env.PodConfig("first")))(k)))
	k.must(k.env.MarkBaseline())
	return k
}

// must makes a value of a call that may not fail.
func must[T any](v T, err error) func(kit) T {
	return func(k kit) T {
		k.Helper()
		k.must(err)
		return v
	}
}

// fillDisk leaves no byte free in a directory, and returns how to end that.
func fillDisk(k kit, dir string) (free func()) {
	k.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	k.must(err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else {
			k.must(err)
		}
	}
	return func() { k.must(os.Remove(path)) }
}

// TestDiskThatIsFull, be it that of the root or of the state: what needs space is
// refused, with a reason. What runs goes on. What makes space works: to stop and to
// remove pods, and with it to learn how containers ended. A daemon that starts
// meanwhile takes over all.
func TestDiskThatIsFull(t *testing.T) {
	for name, directory := range map[string]func(*testenv.Env) string{
		"root":  func(e *testenv.Env) string { return e.Root },
		"state": func(e *testenv.Env) string { return e.State },
	} {
		t.Run(name, func(t *testing.T) {
			k := nodeOnDisk(t, directory, "size=192m")
			other, otherPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "other" })
			otherID := k.start(other, otherPod, k.shell("a", "exec sleep 600"))
			going, goingPod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "going" })
			ends := k.start(going, goingPod, k.shell("ends", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"))
			k.logHas(goingPod, k.shell("ends", ""), "up")
			k.start(going, goingPod, k.shell("stays", "exec sleep 600"))
			before, err := k.env.Observe()
			k.must(err)

			free := fillDisk(k, directory(k.env))
			full, err := k.env.Observe()
			k.must(err)
			_, err = k.env.Client.RunPod(k.ctx, k.env.PodConfig("none"))
			k.refused(err, codes.ResourceExhausted, "no space left")
			_, err = k.create(other, otherPod, k.shell("none", "true"))
			k.refused(err, codes.ResourceExhausted, "no space left")
			gone(k, full)
			k.exec(otherID, "true")
			_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: ends, Timeout: 30})
			k.must(err)
			if st := k.status(ends); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 7 {
				t.Errorf("what ended on a full disk: %v", st)
			}
			_, err = k.env.Restart(k.ctx)
			k.must(err)
			k.exec(otherID, "true")
			k.must(k.env.Client.RemovePod(k.ctx, going))
			free()

			now, err := k.env.Observe()
			k.must(err)
			for _, left := range now.Since(before) {
				t.Errorf("left behind: %s", left)
			}
			again, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("none"))
			k.must(err)
			k.must(k.env.Client.RemovePod(k.ctx, again))
			k.exec(otherID, "true")
			k.must(k.env.Client.RemoveAll(k.ctx))
			k.must(k.env.Audit(k.ctx))
		})
	}
}

// records is the directory of an environment's records.
func records(e *testenv.Env) string { return filepath.Join(e.Root, "pods") }

// setReadOnly is what an error of its disk does to a mounted file system.
func setReadOnly(k kit, dir string) {
	k.Helper()
	k.must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func setWritable(k kit, dir string) {
	k.Helper()
	k.must(unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
}

// TestRecordsThatCannotBeWritten, because their disk has become read-only: requests
// fail and say so, what runs goes on, what ends meanwhile is told, and is on record
// when the disk can be written to again.
func TestRecordsThatCannotBeWritten(t *testing.T) {
	k := nodeOnDisk(t, records, "size=16m")
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o777))
	id, pod := k.pod()
	stays := k.start(id, pod, k.shell("stays", "exec sleep 600"))
	c := k.shell("ends", "echo up; while [ ! -e /gate/go ]; do sleep 0.02; done; exit 5", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/gate", HostPath: dir}}
	})
	ends := k.start(id, pod, c)
	dead, _ := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = "dead" })
	pid := sandboxPID(k, dead)

	setReadOnly(k, records(k.env))
	_, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("none"))
	k.refused(err, codes.FailedPrecondition, "read-only")
	_, err = k.create(id, pod, k.shell("none", "true"))
	k.refused(err, codes.FailedPrecondition, "read-only")
	k.must(os.WriteFile(dir+"/go", nil, 0o644))
	killPID(k, pid)
	if st := k.wait(ends); st.ExitCode != 5 {
		t.Errorf("what ended meanwhile: %v", st)
	}
	k.notReady(dead)
	k.eventually("the daemon says that it cannot record an end", func() bool {
		log := readFile(k, k.env.LogFile())
		return strings.Contains(log, "Failed to record the end of a container; it will be tried again") &&
			strings.Contains(log, "Failed to record the end of a sandbox; it will be tried again")
	})
	k.exec(stays, "true")
	setWritable(k, records(k.env))

	k.eventually("the ends are on record", func() bool {
		return strings.Contains(readFile(k, filepath.Join(records(k.env), id, ends, "status.json")), `"exited"`) &&
			strings.Contains(readFile(k, filepath.Join(records(k.env), dead, "status.json")), `"dead"`)
	})
	k.exec(stays, "true")
	k.must(k.env.Client.RemoveAll(k.ctx))
	k.must(k.env.Audit(k.ctx))
}

// notReady waits until a pod is reported as not ready.
func (k kit) notReady(id string) {
	k.Helper()
	k.eventually("the pod is not ready", func() bool {
		st, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		k.must(err)
		return st.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
}

// eventually waits until something is so.
func (k kit) eventually(what string, is func() bool) {
	k.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.Fatalf("in vain waited until %s", what)
		}
	}
}

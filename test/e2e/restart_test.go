package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestRecoverAfterAnExitWhileAway: while no daemon runs, containers go on, print and
// end, and the next daemon knows.
func TestRecoverAfterAnExitWhileAway(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o777))
	gate := func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/gate", HostPath: dir}}
	}
	id, pod := k.pod()
	stays := k.shell("stays", "echo before; while [ ! -e /gate/go ]; do sleep 0.05; done; echo meanwhile; exec sleep 600", gate)
	ends := k.shell("ends", "while [ ! -e /gate/go ]; do sleep 0.05; done; echo last words; exit 42", gate)
	staysID, endsID := k.start(id, pod, stays), k.start(id, pod, ends)
	createdID, err := k.create(id, pod, k.shell("created", "echo started late; exec sleep 600"))
	k.must(err)
	k.logHas(pod, stays, "before")
	before := snapshotOf(k)
	pid := sandboxPID(k, id)

	k.must(k.env.Kill())
	k.must(os.WriteFile(dir+"/go", nil, 0o644))
	time.Sleep(time.Second)
	_, err = k.env.Start(k.ctx)
	k.must(err)

	if st := k.wait(endsID); st.ExitCode != 42 || st.Reason != "Error" {
		t.Errorf("the end in between: %v", st)
	}
	k.wants(k.log(pod, ends), "last words")
	k.wants(k.logHas(pod, stays, "meanwhile"), "before")
	if got := sandboxPID(k, id); got != pid {
		t.Errorf("the sandbox is another: pid %s, was %s", got, pid)
	}
	if after := snapshotOf(k); after != before {
		t.Errorf("pods and containers changed:\n%s\nbefore:\n%s", after, before)
	}
	if got := k.exec(staysID, "echo still here"); got != "still here\n" {
		t.Errorf("exec printed %q", got)
	}
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: createdID})
	k.must(err)
	if st := k.status(createdID); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the created container: %v", st)
	}
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: staysID, Timeout: 1})
	k.must(err)
	if st := k.status(staysID); st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("the stopped container: %v", st)
	}
	k.must(k.env.Client.RemovePod(k.ctx, id))
	k.must(k.env.Audit(k.ctx))
}

// snapshotOf is what must not change over a restart.
func snapshotOf(k kit) string {
	k.Helper()
	var b strings.Builder
	pods, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{})
	k.must(err)
	for _, p := range pods.Items {
		st, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Id})
		k.must(err)
		fmt.Fprintln(&b, p.Id, p.State, p.Metadata.Name, p.CreatedAt, st.Status.Network.Ip, p.Labels)
	}
	ctrs, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{})
	k.must(err)
	for _, c := range ctrs.Containers {
		fmt.Fprintln(&b, c.Id, c.Metadata.Name, c.CreatedAt, c.ImageId)
	}
	return b.String()
}

// TestSandboxThatDiesIsSeen, with the daemon there and with the daemon away.
func TestSandboxThatDiesIsSeen(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("daemon away %v", away), func(t *testing.T) {
			k := ownNode(t, testenv.Options{})
			id, pod := k.pod()
			c := k.shell("a", "echo up; exec sleep 600")
			cid := k.start(id, pod, c)
			k.logHas(pod, c, "up")
			pid := sandboxPID(k, id)
			if away {
				k.must(k.env.Kill())
			}
			killPID(k, pid)
			if away {
				_, err := k.env.Start(k.ctx)
				k.must(err)
			}
			if st := k.wait(cid); st.ExitCode != 137 {
				t.Errorf("container: %v", st)
			}
			ps, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
			k.must(err)
			if ps.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				t.Errorf("pod: %v", ps.Status)
			}
			k.must(k.env.Client.RemovePod(k.ctx, id))
			k.must(k.env.Audit(k.ctx))
		})
	}
}

func TestDaemonStopsOnSIGTERMAndPodsRunOn(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	c := k.shell("a", "echo up; exec sleep 600")
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "up")
	k.must(k.env.Stop(k.ctx))
	_, err := k.env.Start(k.ctx)
	k.must(err)
	if got := k.exec(cid, "echo on"); got != "on\n" {
		t.Errorf("exec printed %q", got)
	}
}

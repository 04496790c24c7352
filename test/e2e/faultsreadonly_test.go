package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestWhatIsToEndEndsOnAReadOnlyDisk: a node whose disk has become read-only can be
// drained. Containers end with their grace, or for their memory limit, and pods are
// stopped, and are reported so; the answer is the error of the disk, at each try, since the address is given
// back only on record. When the disk can be written to again, the next try finishes.
func TestWhatIsToEndEndsOnAReadOnlyDisk(t *testing.T) {
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
	k.wantsAloneKilled(other, greedy)

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

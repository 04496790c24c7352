package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// lease is a file that nobody can open until its lease is given up. Who opens it waits in
// the node's kernel, as for a network file system that is away.
type lease struct {
	k kit
	f *os.File
}

func newLease(k kit, name string) lease {
	k.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	k.must(err)
	k.Cleanup(func() { f.Close() })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		k.Skipf("no leases at %s: %v", name, err)
	}
	return lease{k, f}
}

// awaitOpen returns when somebody waits for it.
func (l lease) awaitOpen() {
	l.k.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		kind, err := unix.FcntlInt(l.f.Fd(), unix.F_GETLEASE, 0)
		l.k.must(err)
		if kind != unix.F_WRLCK {
			return
		}
		if time.Now().After(deadline) {
			l.k.Fatal("nobody opens the file")
		}
	}
}

func (l lease) release() {
	_, err := unix.FcntlInt(l.f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	l.k.must(err)
}

// TestStopContainerOfAProcessThatTakesNoSignal ends, in an error, soon after the grace
// period. The pod's other containers go on, its end is recorded when it comes,
// and its pod can be removed at any time.
func TestStopContainerOfAProcessThatTakesNoSignal(t *testing.T) {
	k := ownNode(t, testenv.Options{Config: "[timeouts]\nsandbox = '2s'\nnetwork = '10m'\n"})
	vol := sharedDirectory(k, "leases")
	id, pod := k.pod()
	other := k.start(id, pod, k.shell("other", "exec sleep 600"))
	stuck := func(name string) (string, lease) {
		l := newLease(k, filepath.Join(vol, name))
		c := k.shell(name, "exec cat /vol/"+name)
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: vol}}
		cid := k.start(id, pod, c)
		l.awaitOpen()
		return cid, l
	}
	cid, l := stuck("a")
	ctx, cancel := context.WithTimeout(k.ctx, limit)
	defer cancel()
	_, err := k.runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: cid, Timeout: 1})
	k.refused(err, codes.DeadlineExceeded, cid, "did not end after SIGKILL") // not by the caller's own deadline
	_, err = k.runtime().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: cid})
	k.refused(err, codes.DeadlineExceeded, cid, "did not end after SIGKILL")
	if st := k.status(cid); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("it is %v", st)
	}
	if got := k.exec(other, "echo fine"); got != "fine\n" {
		t.Errorf("the other container printed %q", got)
	}
	l.release()
	if st := k.wait(cid); st.ExitCode != 137 {
		t.Errorf("its end: %v", st)
	}

	stuck("b")
	k.must(k.env.Client.RemovePod(ctx, id))
}

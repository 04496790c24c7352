package e2e

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExecSync(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	resp, err := k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 4"}})
	k.must(err)
	if string(resp.Stdout) != "out\n" || string(resp.Stderr) != "err\n" || resp.ExitCode != 4 {
		t.Errorf("answer = %v", resp)
	}
	_, err = k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid})
	k.refused(err, codes.InvalidArgument)
	_, err = k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"/none"}})
	if err == nil {
		t.Error("a program that does not exist ran")
	}
	t.Logf("a program that does not exist: %v", err)
}

func TestExecSyncTimeoutKillsTheTree(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	start := time.Now()
	_, err := k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Timeout: 1, Cmd: []string{"/bin/sh", "-c", "sleep 777 & sleep 777"}})
	k.refused(err, codes.DeadlineExceeded, "1s")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if out := k.exec(cid, "ps | grep -c '[s]leep 777' || true"); out != "0\n" {
		t.Errorf("%s processes are left", out)
	}
}

func TestExecSyncDoesNotWaitForABackgroundChild(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	resp, err := k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Timeout: 30, Cmd: []string{"/bin/sh", "-c", "sleep 60 & echo done"}})
	k.must(err)
	if string(resp.Stdout) != "done\n" {
		t.Errorf("answer = %v", resp)
	}
}

func TestExecSyncOutputIsCapped(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	resp, err := k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"/bin/sh", "-c", "head -c 17000000 /dev/zero | tr '\\0' x; echo err >&2"}})
	k.must(err)
	if !bytes.HasSuffix(resp.Stdout, []byte("truncated]\n")) && !bytes.Contains(resp.Stdout[len(resp.Stdout)-100:], []byte("truncated")) {
		t.Errorf("%d bytes, the end is %q", len(resp.Stdout), resp.Stdout[max(0, len(resp.Stdout)-60):])
	}
	if string(resp.Stderr) != "err\n" {
		t.Errorf("stderr = %q", resp.Stderr)
	}
}

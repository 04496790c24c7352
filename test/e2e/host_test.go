package e2e

import (
	"encoding/json"
	"os"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandboxPID is the pid of a pod's sandbox process, from the verbose status.
func sandboxPID(k kit, podID string) string {
	k.Helper()
	resp, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID, Verbose: true})
	k.must(err)
	var info struct {
		PID int `json:"pid"`
	}
	k.must(json.Unmarshal([]byte(resp.Info["info"]), &info))
	if info.PID <= 1 {
		k.Fatalf("the pod's info has no pid: %v", resp.Info)
	}
	return strconv.Itoa(info.PID)
}

func readFile(k kit, path string) string {
	k.Helper()
	data, err := os.ReadFile(path)
	k.must(err)
	return string(data)
}

// killPID ends one process of the test's own pods.
func killPID(k kit, pid string) {
	k.Helper()
	n, err := strconv.Atoi(pid)
	k.must(err)
	p, err := os.FindProcess(n)
	k.must(err)
	k.must(p.Kill())
}

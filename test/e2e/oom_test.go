package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eat is a script that takes so many MiB, says so and keeps them.
func eat(mibs int) string {
	return fmt.Sprintf(`exec awk 'BEGIN { s = sprintf("%%1048576s", "x"); for (i = 0; i < %d; i++) a[i] = s i; system("echo eaten; sleep 600") }'`, mibs)
}

// wantsAloneKilled waits for the end of a container of 64 MiB, which has to come
// for that limit's sake and without the pod's.
func (k limitsKit) wantsAloneKilled(podID, id string) {
	k.Helper()
	st := k.wait(id)
	if st.ExitCode != 137 || st.Reason != "OOMKilled" || !strings.Contains(st.Message, strconv.Itoa(64*mib)) {
		k.Errorf("the container: %v", st)
	}
	ps, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID})
	k.must(err)
	if ps.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		k.Errorf("its pod: %v", ps.Status)
	}
}

func TestOOMKillsOnlyWhatExceedsItsLimit(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	neighbour := k.start(id, pod, k.shell("neighbour", "exec sleep 600", withResources(memory(64))))
	greedy := k.start(id, pod, k.shell("greedy", "sleep 600 & "+eat(2000), withResources(memory(64))))
	limitsKit{k}.wantsAloneKilled(id, greedy)
	if st := k.status(neighbour); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("its neighbour: %v", st)
	}
	k.wants(k.exec(neighbour, "echo alive"), "alive")
	// One that stays below its limit is not killed.
	modest := k.start(id, pod, k.shell("modest", eat(40), withResources(memory(64))))
	k.logHas(pod, k.shell("modest", ""), "eaten")
	if st := k.status(modest); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the modest one: %v", st)
	}
}

// tooMuch is over 64 MiB, and leaves the pod below its own limit however late the daemon
// looks.
const tooMuch = 80

func TestUpdateContainerResourcesLowerLimitIsWatchedAtOnce(t *testing.T) {
	k := limitsKit{newKit(t)}
	id, pod := k.pod()
	c := k.shell("a", "while [ ! -e /go ]; do sleep 0.02; done; "+eat(tooMuch))
	a := k.start(id, pod, c)
	k.must(k.update(a, memory(64))) // nobody watched so far
	k.exec(a, "touch /go")
	k.wantsAloneKilled(id, a)
}

func TestRecoverHoldsMemoryLimits(t *testing.T) {
	k := ownNode(t, nodeOptions)
	id, pod := k.pod()
	a := k.start(id, pod, k.shell("a", "while [ ! -e /go ]; do sleep 0.02; done; "+eat(tooMuch), withResources(memory(64))))
	_, err := k.env.Restart(k.ctx)
	k.must(err)
	k.exec(a, "touch /go")
	limitsKit{k}.wantsAloneKilled(id, a)
}

// TestRecoverDoesAKillThatWasDecided: the daemon may die between the record and the
// signal.
func TestRecoverDoesAKillThatWasDecided(t *testing.T) {
	k := ownNode(t, nodeOptions)
	id, pod := k.pod()
	a := k.start(id, pod, k.shell("a", "exec sleep 600", withResources(memory(64))))
	b := k.start(id, pod, k.shell("b", "exec sleep 600", withResources(memory(64))))
	k.must(k.env.Kill())
	path := filepath.Join(k.env.Root, "pods", id, a, "status.json")
	var record map[string]any
	k.must(json.Unmarshal([]byte(readFile(k, path)), &record))
	record["oomKilled"] = true
	data, err := json.Marshal(record)
	k.must(err)
	k.must(os.WriteFile(path, data, 0o600))
	_, err = k.env.Start(k.ctx)
	k.must(err)
	limitsKit{k}.wantsAloneKilled(id, a)
	if st := k.status(b); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("its neighbour: %v", st)
	}
}

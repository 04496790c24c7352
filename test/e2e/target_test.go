package e2e

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestPIDNamespaceOfATarget is what kubectl debug --target asks for: a container that
// comes later sees the processes of one that runs, also after a restart of the daemon,
// and ends with it.
func TestPIDNamespaceOfATarget(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	own := func(c *runtimeapi.ContainerConfig) {
		security(c).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	}
	into := func(target string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			security(c).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target}
		}
	}
	app := k.start(id, pod, k.shell("app", "echo secret > /tmp/mark; exec sleep 4000", own))
	k.start(id, pod, k.shell("neighbour", "exec sleep 4001", own))
	before, err := k.create(id, pod, k.shell("before", "exec sleep 1", into(app)))
	k.must(err)

	_, err = k.env.Restart(k.ctx)
	k.must(err)
	sees := func(out string) {
		t.Helper()
		if !strings.Contains(out, "sleep 4000") || strings.Contains(out, "sleep 4001") {
			t.Errorf("it sees\n%s", out)
		}
	}
	debug := k.shell("debug", "ps; cat /proc/1/root/tmp/mark; echo ready; exec sleep 4002", into(app))
	debugID := k.start(id, pod, debug)
	out := k.logHas(pod, debug, "ready\n")
	sees(out)
	k.wants(out, "secret\n")
	sees(k.exec(debugID, "ps"))
	k.wants(k.exec(app, "ps"), "sleep 4002")
	// The target of a target is in the same namespace.
	sees(k.run(id, pod, k.shell("second", "ps", into(debugID))))

	refuse := func(target string, code codes.Code, words ...string) {
		t.Helper()
		_, err := k.create(id, pod, k.shell("refused", "true", into(target)))
		k.refused(err, code, words...)
	}
	created, err := k.create(id, pod, k.shell("created", "true", own))
	k.must(err)
	refuse(created, codes.FailedPrecondition, created, "not running")
	refuse(strings.Repeat("0", 64), codes.NotFound, "0000")
	other, otherPod := k.pod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name += "-other" })
	refuse(k.start(other, otherPod, k.shell("app", forever, own)), codes.InvalidArgument, "another pod")

	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: app})
	k.must(err)
	if st := k.wait(debugID); st.ExitCode != 137 {
		t.Errorf("the end of the target's ends it with %v", st)
	}
	refuse(app, codes.FailedPrecondition, app, "not running")
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: before})
	k.refused(err, codes.FailedPrecondition, app, "not running")
	// The pod goes on.
	if out := k.run(id, pod, k.shell("after", "echo fine")); out != "fine\n" {
		t.Errorf("afterwards: %q", out)
	}
}

package e2e

import (
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestPrivilegedInsideTheSandbox wants a privileged container to be held by
// nothing inside its sandbox, and by the sandbox as tightly as any other.
func TestPrivilegedInsideTheSandbox(t *testing.T) {
	k := ownNode(t, testenv.Options{Config: "[security]\nprivileged_pods = 'sandbox'\n"})
	id, pod := k.pod(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}
	})
	c := k.shell("a", "exec sleep 600", func(c *runtimeapi.ContainerConfig) {
		security(c).Privileged = true
		// Neither counts for a privileged container.
		security(c).Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		security(c).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	})
	cid := k.start(id, pod, c)
	k.exec(cid, "mkdir /m && mount -t tmpfs none /m && touch /m/x && umount /m && ip link add b type bridge && hostname other")
	k.exec(cid, "! ls /dev | grep -E 'mem|kmsg|loop|disk|vd|sd|nvme'")

	unprivileged, plain := k.pod()
	_, err := k.create(unprivileged, plain, c)
	k.refused(err, codes.InvalidArgument, "privileged", "pod")
}

package spec

import (
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// with adds a field that this build does not know to a message, as a newer kubelet
// sends it.
func with(m proto.Message, number protowire.Number) {
	r := m.ProtoReflect()
	b := protowire.AppendTag(r.GetUnknown(), number, protowire.VarintType)
	r.SetUnknown(protowire.AppendVarint(b, 1))
}

func TestValidateFieldsOfANewerInterface(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig)
		pod    bool // or the container
	}{
		"cgroup_mount_mode": {func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			with(c.Linux.SecurityContext, 18)
		}, false},
		"cgroupns_options": {func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			with(c.Linux.SecurityContext.NamespaceOptions, 6)
		}, false},
		"oci_ref": {func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{}
			with(c.Linux.SecurityContext.Seccomp, 99) // this one is nobody's
			with(c.Linux.SecurityContext.Seccomp, 3)
		}, false},
		"oci_ref of a pod": {func(p *runtimeapi.PodSandboxConfig, _ *runtimeapi.ContainerConfig) {
			with(p.Linux.SecurityContext.Seccomp, 3)
		}, true},
	} {
		p, ctr := basePod(), baseContainer()
		c.change(p, ctr)
		podErr, containerErr := ValidatePod(p), ValidateContainer(ctr, basePod())
		if errdefs.IsFailedPrecondition(podErr) != c.pod || errdefs.IsFailedPrecondition(containerErr) == c.pod {
			t.Errorf("%s: pod %v, container %v", name, podErr, containerErr)
		}
	}
	// Others are no reason to refuse: what is always sent would refuse everything.
	ctr := baseContainer()
	with(ctr.Linux.SecurityContext, 99)
	with(ctr, 99)
	if err := ValidateContainer(ctr, basePod()); err != nil {
		t.Error(err)
	}
}

package enginetest

import (
	"errors"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// accepts checks that an engine refuses what it says that it cannot do, and nothing else.
func (b bench) accepts(what string, can bool, err error) {
	b.Helper()
	switch {
	case can && err != nil:
		b.Errorf("%s is refused: %v", what, err)
	case !can && (!errors.Is(err, engine.ErrNeedsHost) || !errdefs.IsFailedPrecondition(err)):
		b.Errorf("%s: error %v, want a refusal", what, err)
	}
}

func testValidate(b bench) {
	e := b.s.Engine(b)
	can := e.Capabilities()
	pod := func(o *runtimeapi.NamespaceOption) *runtimeapi.PodSandboxConfig {
		return &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: o},
		}}
	}
	ids := []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}}
	const node = runtimeapi.NamespaceMode_NODE
	plain := pod(&runtimeapi.NamespaceOption{})
	b.accepts("a plain pod", true, e.Validate(plain, nil))
	b.accepts("the host's PID namespace", can.HostPID, e.Validate(pod(&runtimeapi.NamespaceOption{Pid: node}), nil))
	b.accepts("the host's IPC namespace", can.HostIPC, e.Validate(pod(&runtimeapi.NamespaceOption{Ipc: node}), nil))
	b.accepts("a user namespace", can.UserNamespaces, e.Validate(pod(&runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{
		Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids,
	}}), nil))
	b.accepts("no pod but its resources", true, e.Validate(&runtimeapi.PodSandboxConfig{}, nil))

	mount := func(m *runtimeapi.Mount) *runtimeapi.ContainerConfig {
		m.ContainerPath, m.HostPath = "/vol", "/srv"
		return &runtimeapi.ContainerConfig{Mounts: []*runtimeapi.Mount{m}}
	}
	b.accepts("a container", true, e.Validate(plain, mount(&runtimeapi.Mount{})))
	b.accepts("a recursively read-only mount", can.RecursiveReadOnlyMounts,
		e.Validate(plain, mount(&runtimeapi.Mount{Readonly: true, RecursiveReadOnly: true})))
	b.accepts("a bidirectional mount", can.BidirectionalMounts,
		e.Validate(plain, mount(&runtimeapi.Mount{Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL})))
}

func testValidateSpec(b bench) {
	e := b.s.Engine(b)
	can := e.Capabilities()
	before, after := b.s.Spec(b, "true"), b.s.Spec(b, "true")
	b.accepts("a spec", true, e.ValidateSpec(nil, before))
	b.accepts("a spec that nobody has changed", true, e.ValidateSpec(before, after))
	after.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	b.accepts("a device of the host", can.HostDevices, e.ValidateSpec(before, after))
	b.accepts("a device that was requested", can.HostDevices, e.ValidateSpec(nil, after))
	after = b.s.Spec(b, "true")
	after.Mounts = append(after.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/srv", Options: []string{"rbind", "rshared"}})
	b.accepts("a shared mount", can.BidirectionalMounts, e.ValidateSpec(before, after))
}

package fakenode

import (
	"math"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// Random makes requests from bytes: the same bytes, the same requests, so that a
// fuzzer's changes of the bytes are changes of the requests.
//
// What a request could do to the machine outside the node is left out, since it
// would be done: paths lie in the node's directory or are no absolute ones, cgroups
// are the node's, images come from its registry or from nowhere, and nothing waits.
type Random struct {
	node *Node
	data []byte

	// Pods and Containers are ids to choose from; the caller adds what was made.
	Pods, Containers []string
}

// NewRandom reads from data until it ends.
func NewRandom(n *Node, data []byte) *Random { return &Random{node: n, data: data} }

// Empty tells whether all bytes are used.
func (r *Random) Empty() bool { return len(r.data) == 0 }

// Below returns a number from 0 to n-1, and 0 when there are no bytes left.
func (r *Random) Below(n int) int {
	if len(r.data) == 0 || n <= 1 {
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return int(b) % n
}

func pick[T any](r *Random, from ...T) T { return from[r.Below(len(from))] }

// Request is a message of a type, half of the time one that would be accepted with
// a few fields changed.
func (r *Random) Request(empty proto.Message) proto.Message {
	density := 2 // one field of so many is set
	if base := r.good(empty); base != nil && r.Below(4) > 0 {
		empty, density = base, 24
	}
	r.fill(empty.ProtoReflect(), density, 6)
	return empty
}

// good is a request that the node accepts, for what makes the others possible.
func (r *Random) good(empty proto.Message) proto.Message {
	switch empty.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		return &runtimeapi.RunPodSandboxRequest{Config: r.pod()}
	case *runtimeapi.CreateContainerRequest:
		return &runtimeapi.CreateContainerRequest{PodSandboxId: r.id(r.Pods), SandboxConfig: r.pod(),
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: pick(r, "a", "b", "c")},
				Image:    &runtimeapi.ImageSpec{Image: r.node.Images[0]},
				Command:  []string{"/bin/sh", "-c", pick(r, enginetest.Polite, "exit 3")},
				LogPath:  "log", Stdin: r.Below(3) == 0, Tty: r.Below(3) == 0, Linux: &runtimeapi.LinuxContainerConfig{},
			}}
	case *runtimeapi.StartContainerRequest:
		return &runtimeapi.StartContainerRequest{ContainerId: r.id(r.Containers)}
	case *runtimeapi.ExecSyncRequest:
		return &runtimeapi.ExecSyncRequest{ContainerId: r.id(r.Containers), Cmd: []string{"true"}}
	}
	return nil
}

func (r *Random) pod() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pick(r, "a", "b"), Namespace: "n", Uid: "u"},
		LogDirectory: filepath.Join(r.node.LogDir(), "pod"),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: r.node.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: pick(r, runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_POD)},
			},
		},
	}
}

// fill sets fields of a message and of those below it.
func (r *Random) fill(m protoreflect.Message, density, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		nested := fd.Message() != nil && !fd.IsList() && !fd.IsMap()
		if nested && m.Has(fd) {
			r.fill(m.Mutable(fd).Message(), density, depth-1)
		}
		rarely := density
		if isID(fd) && density < 24 {
			rarely = 1 // without it nothing else of the request is looked at
		}
		if r.Below(rarely) > 0 || r.Empty() || nested && depth == 0 || protected(m, fd) {
			continue
		}
		switch {
		case fd.IsMap():
			for range r.Below(3) {
				m.Mutable(fd).Map().Set(r.scalar(fd.MapKey(), "").MapKey(), r.value(m.Mutable(fd).Map().NewValue(), fd.MapValue(), density, depth))
			}
		case fd.IsList():
			for range r.Below(3) {
				m.Mutable(fd).List().Append(r.value(m.Mutable(fd).List().NewElement(), fd, density, depth))
			}
		default:
			m.Set(fd, r.value(m.NewField(fd), fd, density, depth))
		}
	}
}

func isID(fd protoreflect.FieldDescriptor) bool {
	return fd.Name() == "pod_sandbox_id" || fd.Name() == "container_id"
}

// id is mostly one that exists.
func (r *Random) id(known []string) string {
	if len(known) > 0 && r.Below(8) > 0 {
		return pick(r, known...)
	}
	return pick(r, "", "f", "no-such-id")
}

// protected fields keep a good value: without it the cgroup would be another's.
func protected(m protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	return fd.Name() == "cgroup_parent" && m.Get(fd).String() != ""
}

func (r *Random) value(empty protoreflect.Value, fd protoreflect.FieldDescriptor, density, depth int) protoreflect.Value {
	if fd.Message() != nil {
		if depth > 0 {
			r.fill(empty.Message(), density, depth-1)
		}
		return empty
	}
	return r.scalar(fd, string(fd.Parent().Name()))
}

func (r *Random) scalar(fd protoreflect.FieldDescriptor, parent string) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(r.text(string(fd.Name()), parent))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(r.text("", "")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.Below(2) == 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.Below(fd.Enum().Values().Len()+2) - 1))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(pick[int32](r, 0, 1, 80, 1000, 70000, -1, math.MaxInt32, math.MinInt32))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(pick[uint32](r, 0, 1, 1000, 65536, math.MaxUint32))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(pick[uint64](r, 0, 1, 1000, 1<<30, math.MaxUint64))
	case protoreflect.Int64Kind:
		if fd.Name() == "timeout" {
			return protoreflect.ValueOfInt64(pick[int64](r, 0, -1, math.MinInt64))
		}
		return protoreflect.ValueOfInt64(pick[int64](r, 0, 1, 1000, 100000, 1<<28, 1<<40, -1, math.MaxInt64, math.MinInt64))
	}
	return fd.Default()
}

// text is a string for a field, by the field's name.
func (r *Random) text(field, parent string) string {
	n := r.node
	switch {
	case field == "pod_sandbox_id":
		return r.id(r.Pods)
	case field == "container_id", field == "target_id":
		return r.id(r.Containers)
	case field == "image", field == "user_specified_image", field == "image_ref", field == "runtime_handler" && parent == "ImageSpec":
		return pick(r, n.Images[0], n.Images[1], "", "UPPER/Case@", "127.0.0.1:1/none:latest", "\x00", " ", "127.0.0.1:1/a@sha256:zz")
	case field == "runtime_handler":
		return pick(r, "", "gvisor", "none")
	case field == "cgroup_parent":
		return pick(r, n.CgroupParent, n.CgroupParent+"/below", "relative", n.CgroupParent+"/../"+n.CgroupParent)
	case field == "log_directory":
		return pick(r, n.LogDir(), filepath.Join(n.LogDir(), "more"), "", "relative", "..")
	case strings.Contains(field, "host_path"), field == "localhost_ref", field == "seccomp_profile_path":
		return pick(r, n.Volumes(), filepath.Join(n.Volumes(), "new"), "", "relative", "/dev/null", n.Volumes()+"/../volumes", "localhost/none.json")
	case strings.HasSuffix(field, "_path"):
		return pick(r, "/x", "/x/y", "", "../..", "log", "/", "/proc", "/dev", "relative/../..", "/x\x00y")
	case field == "pod_cidr":
		return pick(r, "10.1.0.0/16", "10.1.0.0/16,fd00::/64", "10.1.0.0/99", "x", "")
	}
	return pick(r, "", "a", "b", "0", "..", "/", "x/y", "a b", "\x00", "ü", strings.Repeat("x", 300), "CAP_SYS_ADMIN", "ALL",
		"net.ipv4.ip_forward", "-1", "0-3", "1.2.3.4", "SIGTERM", "app", "65536", "=", "{", "noexec")
}

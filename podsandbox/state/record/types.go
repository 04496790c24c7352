package record

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// Message is a protobuf message that stands in JSON as protojson writes it.
type Message[T proto.Message] struct{ Proto T }

// MarshalJSON implements json.Marshaler.
func (m Message[T]) MarshalJSON() ([]byte, error) { return protojson.Marshal(m.Proto) }

// UnmarshalJSON implements json.Unmarshaler. Unknown fields are dropped, so that
// records of a daemon with a newer CRI can still be read.
func (m *Message[T]) UnmarshalJSON(data []byte) error {
	var zero T
	msg, ok := zero.ProtoReflect().Type().New().Interface().(T)
	if !ok {
		return fmt.Errorf("no message of type %T", zero)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, msg); err != nil {
		return err
	}
	m.Proto = msg
	return nil
}

// PodMeta is what the caller asked for.
type PodMeta struct {
	Version   int                                   `json:"version"`
	ID        string                                `json:"id"`
	Handler   string                                `json:"handler"`
	CreatedAt int64                                 `json:"createdAt"` // Unix time, ns
	Config    Message[*runtimeapi.PodSandboxConfig] `json:"config"`
}

// PodStatus is what became of it.
type PodStatus struct {
	Phase   lifecycle.Phase `json:"phase"`
	BootID  string          `json:"bootID"` // of the kernel that runs the sandbox
	Process engine.Process  `json:"process"`
	IPs     []string        `json:"ips,omitempty"`     // primary first
	Message string          `json:"message,omitempty"` // why it is dead

	// Abandoned says that it was never Ready and is being undone: nobody knows it,
	// and its identity is free for another.
	Abandoned bool `json:"abandoned,omitempty"`

	// Resources and Overhead take the place of the request's once they were updated.
	Resources *Message[*runtimeapi.LinuxContainerResources] `json:"resources,omitempty"`
	Overhead  *Message[*runtimeapi.LinuxContainerResources] `json:"overhead,omitempty"`
}

// ContainerMeta is what the caller asked for.
type ContainerMeta struct {
	Version   int                                  `json:"version"`
	ID        string                               `json:"id"`
	PodID     string                               `json:"podID"`
	CreatedAt int64                                `json:"createdAt"` // Unix time, ns
	Config    Message[*runtimeapi.ContainerConfig] `json:"config"`
	ImageID   string                               `json:"imageID"`             // digest of the image's config
	ImageRef  string                               `json:"imageRef"`            // repository and digest where there is one
	ImageName string                               `json:"imageName,omitempty"` // for people; of earlier records the request has it
	// VolumeImages are the images among the mounts of the request: ids, by the place there.
	VolumeImages map[int]string `json:"volumeImages,omitempty"`
	LogPath      string         `json:"logPath,omitempty"`
	// StopSignal is a Linux signal number.
	StopSignal int `json:"stopSignal"`
}

// ContainerStatus is what became of it.
type ContainerStatus struct {
	Phase      lifecycle.Phase                     `json:"phase"`
	StartedAt  int64                               `json:"startedAt,omitempty"`  // Unix time, ns
	FinishedAt int64                               `json:"finishedAt,omitempty"` // Unix time, ns
	ExitCode   int                                 `json:"exitCode"`
	Reason     string                              `json:"reason,omitempty"`
	Message    string                              `json:"message,omitempty"`
	OOMKilled  bool                                `json:"oomKilled,omitempty"` // it is to be killed, or was
	Evicted    string                              `json:"evicted,omitempty"`   // why a plugin ended it
	OOMKills   uint64                              `json:"oomKills,omitempty"`  // in the pod's cgroup when it was started
	User       *Message[*runtimeapi.ContainerUser] `json:"user,omitempty"`
	// Resources take the place of the request's once they were updated.
	Resources *Message[*runtimeapi.LinuxContainerResources] `json:"resources,omitempty"`
}

// Pod is the record of a pod.
type Pod struct {
	*entry[PodMeta, PodStatus]
}

// Container is the record of a container.
type Container struct {
	*entry[ContainerMeta, ContainerStatus]
}

// CreatePod writes the record of a new pod.
func (s *Store) CreatePod(meta PodMeta, status PodStatus) (*Pod, error) {
	meta.Version = Version
	e, err := create(filepath.Join(s.dir, meta.ID), podFile, meta, status)
	if err != nil {
		return nil, err
	}
	return &Pod{e}, nil
}

// CreateContainer writes the record of a new container of this pod.
func (p *Pod) CreateContainer(meta ContainerMeta, status ContainerStatus) (*Container, error) {
	meta.Version = Version
	e, err := create(filepath.Join(p.dir, meta.ID), containerFile, meta, status)
	if err != nil {
		return nil, err
	}
	return &Container{e}, nil
}

// SaveSpec writes the resolved spec. It is called once, before the container is
// announced as created.
func (c *Container) SaveSpec(spec *specs.Spec) error {
	return writeJSON(filepath.Join(c.dir, specFile), spec)
}

// Spec reads the resolved spec. It is not kept in memory: with a seccomp profile
// it is tens of kilobytes, and needed only to start and to exec.
func (c *Container) Spec() (*specs.Spec, error) {
	spec := new(specs.Spec)
	if err := readJSON(filepath.Join(c.dir, specFile), spec); err != nil {
		return nil, fmt.Errorf("read container spec: %w: %w", err, errdefs.ErrDataLoss)
	}
	return spec, nil
}

// SaveWrites writes where what the container writes goes, as SaveSpec does.
func (c *Container) SaveWrites(w engine.Writes) error {
	return writeJSON(filepath.Join(c.dir, writesFile), w)
}

// Writes reads it. A record without it is of a daemon that knew one way: the host.
func (c *Container) Writes() (engine.Writes, error) {
	var w engine.Writes
	if err := readJSON(filepath.Join(c.dir, writesFile), &w); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, fmt.Errorf("read the layers of a container: %w: %w", err, errdefs.ErrDataLoss)
	}
	return w, nil
}

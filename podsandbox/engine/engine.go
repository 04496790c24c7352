// Package engine is the contract between the owner of pods and a sandbox
// engine: the vocabulary both sides use, and nothing that runs.
//
// A sandbox is one isolated environment for one pod; on the gVisor engine, one
// Sentry process. A container is a process tree inside a sandbox. The life of a
// sandbox, in the order of the calls:
//
//	Boot ──> Sandbox.StartRoot ──> Create ──> Start ──> Wait … Destroy ──> Kill
//	 │          │                     └ any number of containers, in any order ┘
//	 │          └ network has been configured in Config.NetNS by now
//	 └ or Prepare, before the pod is known, and Bind, when it is; see machine.go
//
// After a restart of the daemon, Adopt with the saved Process takes Boot's place
// and StartRoot is not called again; containers are known to the sandbox by their
// ids, and Wait on one that ended meanwhile returns its exit status.
//
// Errors are classified with github.com/containerd/errdefs: NotFound (the
// container is not in the sandbox), Unavailable (the sandbox process is gone),
// DeadlineExceeded (the sandbox does not answer), FailedPrecondition and
// InvalidArgument (the caller's order or input). They name what failed inside; the caller
// names the call and the object that it was made for: Boot returns "create start pipe:
// …" and not "boot sandbox ID: create start pipe: …".
//
// All methods are safe for concurrent use. A context bounds the wait for the
// answer. After an error from Prepare, Boot, Create or Start nothing of that step is left.
package engine

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// Engine starts and adopts sandboxes.
type Engine interface {
	// Capabilities says what the engine can. The answer does not change.
	Capabilities() Capabilities

	// Validate refuses what the engine cannot give a pod (container is nil), or a
	// container in a pod that it has accepted. Both are well-formed; see package spec.
	// What is absent from them is not judged, so a change of resources alone is judged
	// by a config with nothing else in it.
	//
	// The first finding is returned, and names what was asked for. ErrNeedsHost is what
	// an engine on the host's kernel could give; InvalidArgument is nonsense to any.
	Validate(pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) error

	// ValidateSpec refuses what the engine cannot give of a container's spec. Before is
	// the spec as package spec made it of an accepted request, after is what devices and
	// plugins made of it, with spec.NormalizeChanges applied; only what differs is
	// judged. With before nil, after is one that package spec has made, and what cannot
	// be told from a request is judged: device nodes and the filter of system calls.
	// Errors as of Validate.
	ValidateSpec(before, after *specs.Spec) error

	// Prepare starts a sandbox process that belongs to no pod yet, and returns when it
	// answers calls. It has no network and no process yet.
	Prepare(ctx context.Context, m Machine) (Prepared, error)

	// Boot is Prepare of a machine as the pod is to have it, and Bind.
	Boot(ctx context.Context, cfg Config) (Sandbox, error)

	// Adopt takes over a sandbox that an earlier daemon booted. An error is
	// errdefs.ErrNotFound only with proof that this sandbox is no more: its process
	// has ended, the pid is another process's by now, or that runs no program of this
	// engine or is not the one that listens for it. The caller may give the pod up, and
	// Reap what is left. All other errors say nothing about the sandbox, whose pod may be
	// healthy, and are errdefs.ErrUnavailable: no descriptor or memory was free, a
	// directory could not be read, the process may not be looked at, nobody listens, ctx
	// has ended before it was known who does, or the answer is none. Adopt is to be
	// called again then; nothing of the call is left. One that is known to be the right
	// process and does not answer in time is adopted. A cfg that cannot be right is
	// errdefs.ErrInvalidArgument.
	Adopt(ctx context.Context, cfg Config, p Process) (Sandbox, error)

	// Reap kills what is left of a sandbox that cannot be adopted: its process
	// and its helpers, found by the id. It is idempotent.
	Reap(ctx context.Context, id string) error

	Finder
}

// Config is all that an engine needs to know of a pod. It is derived from the
// pod's record and can be built again after a restart.
type Config struct {
	ID  string // sandbox id, unique on the node
	Dir string // the engine's own directory of this sandbox; exists; removed by the caller

	Hostname string
	Sysctls  map[string]string

	// NetNS is the path of the pod's pinned network namespace; empty means the
	// host's network.
	NetNS string

	// IDs is the mapping of the user namespace that the sandbox process and its
	// helpers are born in; the zero value lets ids be the host's. Root file
	// systems and stdio belong to mapped ids then, and mounts say by their own
	// mappings how they are to be seen. With the host's network it is
	// InvalidArgument.
	IDs idmap.Mapping

	// CgroupPaths are absolute directories that the sandbox process and its helpers
	// are born in: on cgroup v1 one for each controller, on v2 exactly one.
	// Empty means the daemon's own cgroup.
	CgroupPaths []string

	// MemoryLimit in bytes, CPUQuota and CPUPeriod in microseconds are what the
	// sandbox shows as the size of its machine. Zero means the host's.
	MemoryLimit int64
	CPUQuota    int64
	CPUPeriod   int64

	OOMScoreAdj *int
}

// Process names a process across pid reuse and restarts of the daemon.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// Sandbox is a running sandbox: what each has to be able to. See abilities.go for more.
type Sandbox interface {
	// Process names the sandbox process; it is saved in the pod's record.
	Process() Process

	// Done is closed when the sandbox process has ended and was reaped.
	Done() <-chan struct{}

	// StartRoot takes the interfaces, addresses and routes of Config.NetNS into
	// the sandbox and starts the root container, which holds the pod's shared
	// namespaces and does nothing else.
	StartRoot(ctx context.Context) error

	// Create prepares a container: its place in the sandbox, and the server of
	// its file systems, started ahead. The caller keeps ownership of c.Stdio.
	Create(ctx context.Context, c Container) error

	// Start runs a container. One that was not created by this daemon (it was
	// restarted in between) is created anew first. It returns when the
	// container's first process exists, which sees the limits of its spec.
	Start(ctx context.Context, c Container) error

	// Learn is called after Adopt for each container that is known to run. It does not
	// ask the sandbox, and waits for nobody for long. Stdio and Hold are not needed.
	Learn(ctx context.Context, c Container) error

	// Recover is called after Adopt, and after Learn for all others, for a container
	// whose start was cut off: a daemon that died in Start cannot know what became of
	// it. It tells whether the container was ever started, and brings its start to an
	// end. It does not block on a running container. Stdio and Hold are not needed.
	// InvalidArgument is a start that has failed, of which nothing is left.
	Recover(ctx context.Context, c Container) (started bool, err error)

	// Update changes what a started container sees of its limits, all of it. What
	// is enforced of them says the engine. A value that it cannot show is
	// InvalidArgument.
	Update(ctx context.Context, id string, r *specs.LinuxResources) error

	// Wait blocks until the container has ended. When the sandbox dies, it
	// returns SIGKILL's status (137) and errdefs.ErrUnavailable.
	Wait(ctx context.Context, id string) (ExitStatus, error)

	// Exec runs a process in a container and returns when it has ended; on an
	// ended context its whole process tree is killed first.
	Exec(ctx context.Context, id string, p Exec) (ExitStatus, error)

	// StartExec runs a process in a container and returns when it exists.
	StartExec(ctx context.Context, id string, p Exec) (Command, error)

	// Signal sends to the container's first process, or to all its processes.
	Signal(ctx context.Context, id string, sig int, all bool) error

	// Destroy ends a container and frees what it holds in the sandbox. An
	// unknown container is no error. While a process of it takes no signal, as one
	// that waits for the host, it is DeadlineExceeded, and to be asked again.
	Destroy(ctx context.Context, id string) error

	// Stats reports the use of each container; a container that is not running
	// is absent.
	Stats(ctx context.Context) (map[string]Usage, error)

	// Kill ends the sandbox process and waits until it is reaped.
	Kill(ctx context.Context) error
}

// Container is what Create and Start need. Both get the same value.
type Container struct {
	ID   string
	Spec *specs.Spec // Root.Path is the mounted root file system on the host; for its PID namespace see pidns.go

	// Writes says where what the container writes goes.
	Writes Writes

	// HostSockets lets it connect to Unix sockets of the host that lie in its mounts.
	HostSockets bool

	// Stdio are stdin, stdout and stderr; with Spec.Process.Terminal only the
	// first counts, the terminal's slave side. Needed by Start alone. The sandbox
	// holds stdout and stderr open until Destroy, so that what was written last can
	// be read by a daemon that was away; their end is therefore no sign of the
	// container's.
	Stdio [3]*os.File

	// Hold are further files that the sandbox holds open in the same way, by a
	// name of the caller's: for what must outlive the daemon, such as a
	// terminal's master side. For a sandbox that is a Holder.
	Hold map[string]*os.File
}

// Writes says where what a container writes goes. Its zero value is the host: what
// is written to the root file system is written at Spec.Root.Path.
type Writes struct {
	// Layers keep what is written in the sandbox, over file systems of the host
	// that are only read then, by the destination of the mount; "/" is the root
	// file system. A mount without one is written where it is. A layer over a
	// read-only mount takes Seed alone.
	Layers map[string]Layer `json:"layers,omitempty"`

	// Memory are the mounts, by their destinations, that are volumes in the sandbox's
	// memory, whatever their sources.
	Memory map[string]MemoryVolume `json:"memory,omitempty"`

	// Seed is in the layer of the root file system before the container starts.
	Seed []SeedEntry `json:"seed,omitempty"`

	// FIFOs are absolute paths of the image at which FIFOs may be. Those that are
	// there are made in the layer, with owner and mode as in the image: those of the
	// image itself lie on the host, and are not opened.
	FIFOs []string `json:"fifos,omitempty"`
}

// MemoryVolume is a volume of the pod that is kept in the sandbox's memory, made for the
// first container that has it, and the same for all. The host has none of its files.
type MemoryVolume struct {
	Name  string `json:"name"`            // of the volume, unique in the pod; a file name
	Below string `json:"below,omitempty"` // the directory of it that the container has; made if there is none

	// Bytes and Inodes are how many there may be; zero is no limit.
	Bytes  uint64 `json:"bytes,omitempty"`
	Inodes uint64 `json:"inodes,omitempty"`

	// Mode, UID and GID, of the container, are those of the volume and of each directory
	// on the way to Below that is made.
	Mode uint32 `json:"mode"` // the last 12 bits of st_mode; inode(7)
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// Layer is what a container has written, as a file system inside the sandbox. The
// host has none of its files.
type Layer struct {
	// File is a file on the host that holds the contents of all its files. It
	// belongs to the layer alone, is emptied at Start, and sparse. Without one the
	// contents are in the sandbox's memory.
	File string `json:"file,omitempty"`

	// Bytes and Inodes are how many there may be, and what the container is told
	// of its free space by; what goes beyond fails with ENOSPC. Zero is no limit.
	Bytes  uint64 `json:"bytes,omitempty"`
	Inodes uint64 `json:"inodes,omitempty"`
}

// SeedEntry is a file or directory of the container's root (uid 0, gid 0 of the
// container). It takes the place of a file of the image, unless it is optional; a
// directory that the image has stays as it is.
type SeedEntry struct {
	Path     string      `json:"path"` // absolute and clean; links of the image are followed up to its last element
	Mode     os.FileMode `json:"mode"` // permissions, os.ModeDir
	Content  []byte      `json:"content,omitempty"`
	Optional bool        `json:"optional,omitempty"`
}

// Exec is a process to run in a running container.
type Exec struct {
	Process *specs.Process
	// Stdio are descriptors of the host; nil means /dev/null. With
	// Process.Terminal all three are the terminal's slave side.
	Stdio [3]*os.File
}

// Command is a process that StartExec began.
type Command interface {
	// Wait blocks until the process has ended. The end of ctx ends the wait
	// alone. It may be called once; until it has returned, the sandbox keeps the
	// process's exit status.
	Wait(ctx context.Context) (ExitStatus, error)

	// Signal sends to the foreground process group of the process's terminal, or
	// without a terminal to the process group that it leads.
	Signal(ctx context.Context, sig int) error
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code   int // 0–255; 128+n when ended by signal n
	Signal int // the signal, or 0
}

// Usage is what a container used.
type Usage struct {
	CPU         time.Duration // since its start, the sum of the next two; never zero
	CPUUser     time.Duration
	CPUSystem   time.Duration
	MemoryBytes uint64 // never zero
	Pids        uint64
}

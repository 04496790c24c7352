package gvisor

import (
	"net"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The methods of a sandbox's control socket that the engine calls.
const (
	methodSetNetwork = "containerManager.SetNetworkArgs"
	methodStartRoot  = "containerManager.StartRoot"
	methodCreate     = "containerManager.CreateSubcontainer"
	methodStart      = "containerManager.StartSubcontainer"
	methodDestroy    = "containerManager.DestroySubcontainer"
	methodWait       = "containerManager.Wait"
	methodWaitPID    = "containerManager.WaitPID"
	methodExec       = "containerManager.ExecuteAsync"
	methodSignal     = "containerManager.Signal"
	methodProcesses  = "containerManager.Processes"
	methodState      = "containerManager.ContainerRuntimeState"
	methodReadCgroup = "Cgroups.ReadControlFiles"
	methodReadFile   = "Fs.Read"
)

// methodWords are what the sandbox is asked to do by these, and by those of debug.go.
var methodWords = map[string]string{
	methodSetNetwork: "take over the network of the pod",
	methodStartRoot:  "start its root container",
	methodCreate:     "make a place for the container",
	methodStart:      "run the first process",
	methodDestroy:    "remove the container",
	methodWait:       "tell the exit status",
	methodWaitPID:    "tell the exit status",
	methodExec:       "start the process",
	methodSignal:     "deliver the signal",
	methodProcesses:  "list processes",
	methodState:      "tell the state of the container",
	methodReadCgroup: "read its cgroups",
	methodReadFile:   "read a file",
	methodStacks:     "show its stacks",
	methodLog:        "change its log",
	methodEvent:      "tell what it has counted",
	methodHeap:       "profile its heap",
	methodCPUProfile: "profile its use of the processor",
	methodTrace:      "trace itself",
}

// The types below are the arguments and results of those methods, as JSON, with
// only the fields that the engine sets or reads. testdata/contract holds one
// golden file of each, and a test of the nested module decodes every one of them
// into gVisor's own type.

type ipPrefix struct {
	Address   net.IP
	PrefixLen int
}

type route struct {
	Destination net.IPNet
	Gateway     net.IP
	MTU         uint32
}

type defaultRoute struct {
	Route route
	Name  string
}

type neighbor struct {
	IP           net.IP
	HardwareAddr net.HardwareAddr
}

type loopbackLink struct {
	Name      string
	Addresses []ipPrefix
	Routes    []route
}

// packetLink is an interface whose packets come through an AF_PACKET socket.
type packetLink struct {
	Name              string
	InterfaceIndex    int
	MTU               int
	Addresses         []ipPrefix
	Routes            []route
	GSOMaxSize        uint32
	GVisorGSOEnabled  bool
	RXChecksumOffload bool
	LinkAddress       net.HardwareAddr
	QDisc             int
	Neighbors         []neighbor
	NumChannels       int

	peer int // of a veth: the number of its other end, in whatever namespace that is
}

// qdiscFIFO is gVisor's queueing discipline with a sending goroutine of its own.
const qdiscFIFO = 1

type networkArgs struct {
	LoopbackLinks    []loopbackLink
	FDBasedLinks     []packetLink
	Defaultv4Gateway defaultRoute
	Defaultv6Gateway defaultRoute
}

type createArgs struct {
	CID string
}

// How a mount is served; see mountConf.
const (
	lowerNone   = 0
	lowerLisafs = 1
	lowerErofs  = 2
)

// Where what is written over a mount goes; see mountConf.
const (
	upperNone   = 0 // to the mount itself
	upperMemory = 1 // to the sandbox's memory
	upperFile   = 3 // to a file that travels with the start of the container
)

// mountConf says how the root (the first one) and each bind or EROFS mount of a
// container is served, in the order of the spec.
type mountConf struct {
	Lower int    `json:"lower"`
	Upper int    `json:"upper"`
	Size  string `json:"size,omitempty"` // of the upper layer, a tmpfs: its option "size" and what follows it
}

// containerConf is the part of gVisor's configuration that belongs to a
// container. It must agree with the flags of the boot process. No FIFO of the host can
// be opened: the Sentry would wait for its other end in the host's open(2), with locks
// of the file system held, where no signal of a container reaches it.
type containerConf struct {
	Platform         string
	DirectFS         bool
	FileAccessMounts int // 1: others may change the files of binds meanwhile
	DCache           int // -1: a cache a mount; 0 would mean none
	OCISeccomp       bool
	EnableRaw        bool
	InSandboxCgroup  int    // 1: cgroup v2
	OverrideProcs    string // files of /proc to show empty, separated by commas
}

type startArgs struct {
	Spec                        *specs.Spec
	Conf                        containerConf
	CID                         string
	GoferMountConfs             []mountConf
	NumGoferFilestoreFDs        int
	IsRootfsUpperTarFilePresent bool
}

type waitPIDArgs struct {
	PID int32
	CID string
}

// Ways to deliver a signal.
const (
	signalProcess = 0 // PID, or the container's first process when PID is 0
	signalAll     = 1
	// signalForeground is the foreground process group of the terminal of PID,
	// an exec'd process, or of the container when PID is 0.
	signalForeground = 2
	signalGroup      = 3 // PID is a process group, as numbered in the root pid namespace
)

type signalArgs struct {
	CID   string
	Signo int32
	PID   int32
	Mode  int
}

type capabilityMasks struct {
	PermittedCaps   uint64
	InheritableCaps uint64
	EffectiveCaps   uint64
	BoundingCaps    uint64
	AmbientCaps     uint64
}

type execArgs struct {
	Argv             []string `json:"argv"`
	Envv             []string `json:"envv"`
	WorkingDirectory string   `json:"wd"`
	KUID             uint32
	KGID             uint32
	ExtraKGIDs       []uint32
	NoNewPrivileges  bool
	Capabilities     *capabilityMasks
	StdioIsPty       bool
	GuestFDs         []int
	ContainerID      string
}

// guestProcess is a process as numbered in the sandbox's root pid namespace.
type guestProcess struct {
	PID  int32 `json:"pid"`
	PPID int32 `json:"ppid"`
	PGID int32 `json:"pgid"`
}

// guestCommand is a process and the name of its program.
type guestCommand struct {
	guestProcess
	Cmd string `json:"cmd"`
}

// States of a container in the sandbox. One that is not known there is told to
// have stopped.
const (
	guestStateCreating = 1 // has its place, and was not started
	guestStateRunning  = 2
)

type cgroupFile struct {
	Controller string `json:"controller"`
	Path       string `json:"path"`
	Name       string `json:"name"`
}

type cgroupReadArg struct {
	File cgroupFile `json:"file"`
}

type cgroupReadArgs struct {
	Args []cgroupReadArg `json:"args"`
}

type cgroupResult struct {
	Data    string `json:"value"`
	IsError bool   `json:"is_error"`
}

type cgroupResults struct {
	Results []cgroupResult `json:"results"`
}

type readFileArgs struct {
	ContainerID string `json:"container_id"`
	Path        string `json:"path"`
	Size        int64  `json:"size"` // 0: all
}

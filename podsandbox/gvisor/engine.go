package gvisor

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// bootName and goferName are argv[0] of the engine's processes. A gofer's name
// is followed by a slash and the id of its sandbox.
const (
	bootName  = "cri-sandbox-boot"
	goferName = "cri-sandbox-gofer"
)

// Options configure an Engine.
type Options struct {
	// StateDir is the engine's directory; it is created.
	StateDir string
	// ProgramDir is where the sandbox program is staged; it is created. Programs
	// must be allowed to run from there, which on many distributions they are not
	// from /run. Empty means "bin" in StateDir.
	ProgramDir string
	// Debug makes each sandbox write a verbose log, boot.log and gofer-ID.log, to
	// its Config.Dir. The logs hold environments of containers.
	Debug bool
	// Profile lets Debug.Heap, CPUProfile and Trace look into the sandboxes, whose
	// seccomp filters then allow what that takes.
	Profile bool
	// PrivilegedInSandbox takes privileged pods and gives their containers all
	// that there is inside the sandbox. Else they are refused.
	PrivilegedInSandbox bool
	// Log receives what is worth an operator's attention. Nil means slog.Default.
	Log *slog.Logger
}

// Engine implements engine.Engine with one gVisor Sentry a sandbox.
type Engine struct {
	Finder

	opts       Options
	log        *slog.Logger
	program    string // staged sandbox program
	hostMemory uint64 // bytes

	// Lent to every child. Open as long as the engine.
	null       *os.File
	emptyNetNS *os.File // network namespace of all gofers
	rootImage  *os.File // file system of all root containers
	programs   rootProgramFiles

	gateOnce sync.Once
	gate     *os.File // file system of the gate; valid after gateOnce
	gateErr  error    // valid after gateOnce

	noHookOnce sync.Once // the missing netdev hook is reported once

	procSys procSysImages

	hostNetNS *os.File // where CNI leaves the other ends of links; nil is the daemon's own
}

// onHost runs f in the network namespace of the other ends of pods' links.
func (e *Engine) onHost(f func() error) error {
	if e.hostNetNS == nil {
		return f()
	}
	return inNetNS(e.hostNetNS, f)
}

var _ engine.Engine = (*Engine)(nil)

// Capabilities implements engine.Engine. All of it holds for an application kernel that
// is one process of the host.
func (*Engine) Capabilities() engine.Capabilities {
	return engine.Capabilities{UserNamespaces: true, RecursiveReadOnlyMounts: true}
}

// New stages the sandbox program and prepares what all sandboxes share. The
// error is errdefs.ErrFailedPrecondition when this daemon was built without the
// program.
func New(opts Options) (*Engine, error) {
	e := &Engine{opts: opts, log: opts.Log}
	if e.log == nil {
		e.log = slog.Default()
	}
	if opts.ProgramDir == "" {
		e.opts.ProgramDir = filepath.Join(opts.StateDir, "bin")
	}
	if opts.StateDir == "" {
		return nil, fmt.Errorf("no state directory: %w", errdefs.ErrInvalidArgument)
	}
	cu := cleanup.Make(func() { e.Close() })
	defer cu.Clean()
	if err := e.prepare(); err != nil {
		return nil, err
	}
	cu.Release()
	return e, nil
}

func (e *Engine) prepare() error {
	// What the daemon itself has inherited without the mark would go on to every
	// sandbox. Its own descriptors have it anyway.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark inherited descriptors: %w", err)
	}
	var err error
	if err := os.MkdirAll(e.opts.StateDir, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	if e.program, err = stageProgram(e.opts.ProgramDir); err != nil {
		return err
	}
	if e.hostMemory, err = totalMemory(); err != nil {
		return err
	}
	if e.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if e.emptyNetNS, err = newEmptyNetNS(); err != nil {
		return err
	}
	image, err := guest.RootImage()
	if err != nil {
		return err
	}
	if e.rootImage, err = memoryFile("root image", image); err != nil {
		return err
	}
	return e.programs.make()
}

// Close releases what the engine holds open. Sandboxes go on; none may be booted
// or started in afterwards.
func (e *Engine) Close() {
	closeAll([]*os.File{e.null, e.emptyNetNS, e.rootImage, e.gate})
	e.programs.close()
	e.procSys.close()
}

func checkMachine(m engine.Machine) error {
	switch {
	case m.ID == "" || filepath.Base(m.ID) != m.ID:
		return fmt.Errorf("sandbox id %q is not a file name: %w", m.ID, errdefs.ErrInvalidArgument)
	case m.HostNetwork && !m.IDs.IsZero():
		return fmt.Errorf("a sandbox on the host's network is in the host's user namespace: %w", errdefs.ErrInvalidArgument)
	case !filepath.IsAbs(m.Dir):
		return fmt.Errorf("directory %q is not absolute: %w", m.Dir, errdefs.ErrInvalidArgument)
	}
	return nil
}

// totalMemory is the host's, in bytes.
func totalMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil
}

package gvisor

import (
	"context"
	"log/slog"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// rootProgram is a program for what can be done or known in the sandbox alone. It runs
// in the root container, whose namespaces are the sandbox's own, is given by descriptor
// and is in no file system.
type rootProgram struct {
	file         *os.File
	args         []string // its name first
	capabilities []string // within the sandbox
	stdin        *os.File // nil: nothing
	stdout       *os.File // nil: nowhere
}

// rootProgramFiles are the programs that do not depend on what they are to do, open as
// long as the engine.
type rootProgramFiles struct {
	setFiles    *os.File // sets sysctls
	mounts      *os.File // changes mounts
	setCgroup   *os.File // sets what containers see of their limits
	setHostname *os.File // sets the host name
}

func (f *rootProgramFiles) make() (err error) {
	if f.setFiles, err = memoryFile("set files", guest.SetFiles()); err != nil {
		return err
	}
	if f.mounts, err = memoryFile("mounts", guest.Mounts()); err != nil {
		return err
	}
	if f.setCgroup, err = memoryFile("set cgroup", guest.SetCgroup()); err != nil {
		return err
	}
	f.setHostname, err = memoryFile("set hostname", guest.SetHostname())
	return err
}

func (f *rootProgramFiles) close() {
	closeAll([]*os.File{f.setFiles, f.mounts, f.setCgroup, f.setHostname})
}

// rootPrograms runs programs in the root container of one sandbox. What they do is in
// the files named after it (sysctl.go, setcgroup.go, changemounts.go, port.go, …).
type rootPrograms struct {
	control *controlPlane
	files   *rootProgramFiles
	null    *os.File
	sandbox string // its id
	log     *slog.Logger

	asking slot // held while a program runs that is asked; see ask
}

func newRootPrograms(e *Engine, control *controlPlane, sandbox string) *rootPrograms {
	return &rootPrograms{control: control, files: &e.programs, null: e.null, sandbox: sandbox, log: e.log, asking: newSlot()}
}

// start returns when the program runs. It has to be waited for.
func (r *rootPrograms) start(ctx context.Context, p rootProgram) (pid int32, err error) {
	args, err := execArgsOf(r.control.sentry.root, engine.Exec{Process: &specs.Process{
		Args: p.args, Cwd: "/", NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Effective: p.capabilities, Permitted: p.capabilities, Bounding: p.capabilities},
	}})
	if err != nil {
		return 0, err
	}
	stdin, stdout := r.null, r.null
	if p.stdin != nil {
		stdin = p.stdin
	}
	if p.stdout != nil {
		stdout = p.stdout
	}
	// The file behind the three of stdio is the program.
	if err := r.control.call(ctx, methodExec, args, &pid, stdin, stdout, r.null, p.file); err != nil {
		return 0, err
	}
	return pid, nil
}

// wait returns when it has ended, or the sandbox has. The sandbox keeps what it
// knows of a program until then.
func (r *rootPrograms) wait(ctx context.Context, pid int32) (engine.ExitStatus, error) {
	return r.control.wait(ctx, methodWaitPID, waitPIDArgs{PID: pid, CID: r.control.sentry.root})
}

// run starts a program and waits for its end. It kills one that has not ended when ctx does.
func (r *rootPrograms) run(ctx context.Context, p rootProgram) (engine.ExitStatus, error) {
	pid, err := r.start(ctx, p)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	stop := context.AfterFunc(ctx, func() { r.kill(context.WithoutCancel(ctx), pid) })
	defer stop()
	return r.wait(ctx, pid)
}

// kill kills a program that nobody waits for any more. The root container's
// pid namespace is the sandbox's, so the pid is a name that the Sentry knows.
func (r *rootPrograms) kill(ctx context.Context, pid int32) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	arg := signalArgs{CID: r.control.sentry.root, Signo: int32(unix.SIGKILL), PID: pid, Mode: signalProcess}
	if err := r.control.socket.call(ctx, methodSignal, arg, nil); err != nil && !r.control.sentry.proc.ended() {
		r.log.Warn("A program in the sandbox could not be killed", "sandbox", r.sandbox, "error", err)
	}
}

package gvisor

import (
	"context"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
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

// startProgram returns when the program runs. It has to be waited for.
func (s *Sandbox) startProgram(ctx context.Context, p rootProgram) (pid int32, err error) {
	args, err := execArgsOf(s.sentry.root, engine.Exec{Process: &specs.Process{
		Args: p.args, Cwd: "/", NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Effective: p.capabilities, Permitted: p.capabilities, Bounding: p.capabilities},
	}})
	if err != nil {
		return 0, err
	}
	stdin, stdout := s.engine.null, s.engine.null
	if p.stdin != nil {
		stdin = p.stdin
	}
	if p.stdout != nil {
		stdout = p.stdout
	}
	// The file behind the three of stdio is the program.
	if err := s.control.call(ctx, methodExec, args, &pid, stdin, stdout, s.engine.null, p.file); err != nil {
		return 0, err
	}
	return pid, nil
}

// waitProgram returns when it has ended, or the sandbox has. The sandbox keeps what it
// knows of a program until then.
func (s *Sandbox) waitProgram(ctx context.Context, pid int32) (engine.ExitStatus, error) {
	return s.control.wait(ctx, methodWaitPID, waitPIDArgs{PID: pid, CID: s.sentry.root})
}

// runProgram kills a program that has not ended when ctx does.
func (s *Sandbox) runProgram(ctx context.Context, p rootProgram) (engine.ExitStatus, error) {
	pid, err := s.startProgram(ctx, p)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	stop := context.AfterFunc(ctx, func() { s.killProgram(context.WithoutCancel(ctx), pid) })
	defer stop()
	return s.waitProgram(ctx, pid)
}

// killProgram kills a program that nobody waits for any more. The root container's
// pid namespace is the sandbox's, so the pid is a name that the Sentry knows.
func (s *Sandbox) killProgram(ctx context.Context, pid int32) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	arg := signalArgs{CID: s.sentry.root, Signo: int32(unix.SIGKILL), PID: pid, Mode: signalProcess}
	if err := s.control.socket.call(ctx, methodSignal, arg, nil); err != nil && !s.sentry.proc.ended() {
		s.engine.log.Warn("A program in the sandbox could not be killed", "sandbox", s.cfg.ID, "error", err)
	}
}

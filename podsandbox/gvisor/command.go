package gvisor

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// command implements engine.Command.
type command struct {
	sandbox  *Sandbox
	id       string // of the container
	started  *startedExec
	terminal bool
}

// StartExec implements engine.Sandbox.
func (s *Sandbox) StartExec(ctx context.Context, id string, p engine.Exec) (engine.Command, error) {
	cmd, err := s.newCommand(ctx, id, p)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return cmd, nil
}

func (s *Sandbox) newCommand(ctx context.Context, id string, p engine.Exec) (*command, error) {
	args, err := execArgsOf(id, p)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, f := range p.Stdio {
		if f == nil {
			f = s.engine.null
		}
		files = append(files, f)
	}
	started, err := s.startExec(ctx, args, files)
	if err != nil {
		return nil, err
	}
	return &command{sandbox: s, id: id, started: started, terminal: p.Process.Terminal}, nil
}

// Wait implements engine.Command.
func (c *command) Wait(ctx context.Context) (engine.ExitStatus, error) {
	status, err := c.wait(ctx)
	if err != nil {
		return status, fmt.Errorf("wait for a command in container %s: %w", c.id, err)
	}
	return status, nil
}

func (c *command) wait(ctx context.Context) (engine.ExitStatus, error) {
	return c.sandbox.wait(ctx, methodWaitPID, waitPIDArgs{PID: c.started.pid, CID: c.id})
}

// Signal implements engine.Command.
func (c *command) Signal(ctx context.Context, sig int) error {
	arg := signalArgs{CID: c.id, Signo: int32(sig), PID: c.started.pid, Mode: signalForeground}
	if !c.terminal {
		// An exec'd process leads a session and a group of its own, which has the
		// number that it has in the root pid namespace.
		if root := c.started.rootPID(ctx); root != 0 {
			arg.PID, arg.Mode = root, signalGroup
		} else {
			arg.Mode = signalProcess
		}
	}
	if err := c.sandbox.control.call(ctx, methodSignal, arg, nil); err != nil {
		return fmt.Errorf("signal a command in container %s: %w", c.id, c.sandbox.explain(err))
	}
	return nil
}

// Kill implements engine.Command.
func (c *command) Kill(ctx context.Context) error {
	if err := c.sandbox.killTree(ctx, c.id, c.started); err != nil {
		return fmt.Errorf("kill a command in container %s: %w", c.id, err)
	}
	return nil
}

// SignalForeground implements engine.TerminalSignaler.
func (s *Sandbox) SignalForeground(ctx context.Context, id string, sig int) error {
	arg := signalArgs{CID: id, Signo: int32(sig), Mode: signalForeground}
	if err := s.control.call(ctx, methodSignal, arg, nil); err != nil {
		return fmt.Errorf("send %s to the terminal of container %s: %w", unix.SignalName(unix.Signal(sig)), id, s.explain(err))
	}
	return nil
}

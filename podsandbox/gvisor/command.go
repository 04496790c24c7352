package gvisor

import (
	"context"
	"os"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// command implements engine.Command.
type command struct {
	processes *guestProcesses
	id        string // of the container
	started   *startedExec
	terminal  bool
}

// StartExec implements engine.Sandbox.
func (s *Sandbox) StartExec(ctx context.Context, id string, p engine.Exec) (engine.Command, error) {
	cmd, err := s.processes.newCommand(ctx, id, p)
	if err != nil {
		return nil, err // and no command that is nil
	}
	return cmd, nil
}

func (g *guestProcesses) newCommand(ctx context.Context, id string, p engine.Exec) (*command, error) {
	args, err := execArgsOf(id, p)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, f := range p.Stdio {
		if f == nil {
			f = g.null
		}
		files = append(files, f)
	}
	started, err := g.startExec(ctx, args, files)
	if err != nil {
		return nil, err
	}
	return &command{processes: g, id: id, started: started, terminal: p.Process.Terminal}, nil
}

// Wait implements engine.Command.
func (c *command) Wait(ctx context.Context) (engine.ExitStatus, error) {
	return c.processes.control.wait(ctx, methodWaitPID, waitPIDArgs{PID: c.started.pid, CID: c.id})
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
	return c.processes.control.signal(ctx, arg)
}

// SignalForeground implements engine.TerminalSignaler.
func (s *Sandbox) SignalForeground(ctx context.Context, id string, sig int) error {
	return s.control.signal(ctx, signalArgs{CID: id, Signo: int32(sig), Mode: signalForeground})
}

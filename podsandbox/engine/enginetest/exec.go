package enginetest

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Exec implements engine.Sandbox.
func (s *sandbox) Exec(ctx context.Context, id string, e engine.Exec) (engine.ExitStatus, error) {
	c, err := s.startCommand(ctx, id, e)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	status, err := c.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		c.end(killed)
		s.dropEnded(c)
		return killed, ctx.Err()
	}
	return status, err
}

// StartExec implements engine.Sandbox.
func (s *sandbox) StartExec(ctx context.Context, id string, e engine.Exec) (engine.Command, error) {
	c, err := s.startCommand(ctx, id, e)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *sandbox) startCommand(ctx context.Context, id string, e engine.Exec) (*command, error) {
	if e.Process == nil || len(e.Process.Args) == 0 {
		return nil, fmt.Errorf("no command: %w", errdefs.ErrInvalidArgument)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if first.hasEnded() {
		return nil, fmt.Errorf("it has ended: %w", errdefs.ErrFailedPrecondition)
	}
	parsed := parseScript(e.Process.Args)
	if parsed.quits {
		first.signal(int(unix.SIGTERM))
	}
	if first.hasEnded() {
		s.endCommands(id)
	}
	stdout := e.Stdio[1]
	if e.Process.Terminal {
		stdout = e.Stdio[0]
	}
	c := &command{process: run(parsed, false, e.Process.Terminal, stdout), sandbox: s, id: id}
	s.mu.Lock()
	s.commands = append(s.commands, c)
	s.mu.Unlock()
	if s.isDead() || first.hasEnded() { // meanwhile
		c.end(killed)
	}
	return c, nil
}

// dropEnded forgets a command that has ended.
func (s *sandbox) dropEnded(c *command) {
	if !c.hasEnded() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.commands {
		if other == c {
			s.commands = append(s.commands[:i], s.commands[i+1:]...)
			return
		}
	}
}

// endCommands ends those of a container whose first process has ended.
func (s *sandbox) endCommands(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if c.id == id {
			c.end(killed)
		}
	}
}

package enginetest

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

var killed = engine.ExitStatus{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}

// process is a container's first process, or a command in a container.
type process struct {
	script   script
	first    bool // of its pid namespace: signals it does not handle do nothing
	terminal bool

	once   sync.Once
	ended  chan struct{}
	status engine.ExitStatus // valid once ended is closed
}

// run starts a process: it prints, and ends unless it is one that runs.
func run(s script, first, terminal bool, stdout *os.File) *process {
	p := &process{script: s, first: first, terminal: terminal, ended: make(chan struct{})}
	if s.prints != "" && stdout != nil {
		stdout.WriteString(s.prints) // nobody reads: no difference to the process
	}
	if !s.runs {
		p.end(engine.ExitStatus{Code: s.code})
	}
	return p
}

func (p *process) end(status engine.ExitStatus) {
	p.once.Do(func() {
		p.status = status
		close(p.ended)
	})
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig int) {
	switch {
	case sig == int(unix.SIGKILL):
		p.end(killed)
	case sig == int(unix.SIGTERM) && p.script.onTerm == 128+sig && p.first:
		// It has no handler.
	case sig == int(unix.SIGTERM) && p.script.onTerm == 128+sig:
		p.end(engine.ExitStatus{Code: 128 + sig, Signal: sig})
	case sig == int(unix.SIGTERM) && p.script.onTerm >= 0:
		p.end(engine.ExitStatus{Code: p.script.onTerm})
	case !p.first && (sig == int(unix.SIGHUP) || sig == int(unix.SIGINT) || sig == int(unix.SIGQUIT)):
		p.end(engine.ExitStatus{Code: 128 + sig, Signal: sig})
	}
}

// command implements engine.Command.
type command struct {
	*process
	sandbox *sandbox
	id      string // of the container
}

// Wait implements engine.Command.
func (c *command) Wait(ctx context.Context) (engine.ExitStatus, error) {
	defer c.sandbox.dropEnded(c)
	select {
	case <-c.ended:
		if c.sandbox.isDead() {
			return killed, c.sandbox.deadError()
		}
		return c.status, nil
	case <-ctx.Done():
		return engine.ExitStatus{}, ctx.Err()
	}
}

// Signal implements engine.Command.
func (c *command) Signal(ctx context.Context, sig int) error {
	if c.sandbox.isDead() {
		return c.sandbox.deadError()
	}
	if c.hasEnded() {
		return fmt.Errorf("it has ended: %w", errdefs.ErrNotFound)
	}
	c.signal(sig)
	return ctx.Err()
}

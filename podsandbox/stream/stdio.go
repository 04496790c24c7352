package stream

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"gvisor.dev/gvisor/pkg/cleanup"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// What the sandbox holds open for a container, so that no death of a daemon hangs
// up a terminal, ends a program's input or loses what is on its way to the log.
const (
	heldStdin    = "stdin"    // a writing end
	heldTerminal = "terminal" // the master side
	heldOutput   = "output"   // the FIFO behind the terminal
)

// terminalPatience is how long an ended container's terminal may take to hang up.
// It takes no time unless the log cannot be written.
const terminalPatience = 5 * time.Second

// Stdio are the files that a container is started with.
type Stdio struct {
	stdio    [3]*os.File
	hold     map[string]*os.File
	terminal *terminal.Terminal // nil without one, and once connected
	output   *os.File           // where what is printed on it goes
}

// OpenStdio opens a container's files; Connect takes them over, and Close closes what is
// left. A container without streams, which ends with its pod, is
// errdefs.ErrFailedPrecondition.
func (*Service) OpenStdio(c *state.Container) (*Stdio, error) {
	streams := c.Streams()
	if streams == nil {
		return nil, fmt.Errorf("its streams are closed, it ends with its pod: %w", errdefs.ErrFailedPrecondition)
	}
	s := &Stdio{hold: map[string]*os.File{}}
	cu := cleanup.Make(s.Close)
	defer cu.Clean()
	var err error
	if s.stdio, err = streams.Stdio(); err != nil {
		return nil, err
	}
	switch {
	case c.Config().GetTty():
		if err := s.openTerminal(); err != nil {
			return nil, err
		}
	case c.Config().GetStdin():
		// After Stdio: a FIFO without a reader cannot be opened for writing.
		if s.hold[heldStdin], err = streams.Input(); err != nil {
			return nil, err
		}
	}
	cu.Release()
	return s, nil
}

// openTerminal puts a terminal between the container and its one FIFO.
func (s *Stdio) openTerminal() error {
	s.stdio[0].Close()
	s.output, s.stdio = s.stdio[1], [3]*os.File{}
	var err error
	if s.terminal, s.stdio[0], err = terminal.Open(); err != nil {
		return err
	}
	s.hold[heldTerminal], s.hold[heldOutput] = s.terminal.Master(), s.output
	return nil
}

// Give names the files to the engine, which the caller of Start keeps.
func (s *Stdio) Give(c *engine.Container) { c.Stdio, c.Hold = s.stdio, s.hold }

// Connect begins to move what a started container prints on its terminal.
func (s *Stdio) Connect(c *state.Container) error {
	if s.terminal == nil {
		return nil
	}
	t, output := s.terminal, s.output
	s.terminal, s.output = nil, nil
	delete(s.hold, heldTerminal) // it is the terminal's
	return connectTerminal(c, t, output)
}

// Close closes the daemon's copies. It may be called more than once.
func (s *Stdio) Close() {
	for _, f := range s.stdio {
		f.Close() // nil and closed ones answer an error
	}
	for _, f := range s.hold {
		f.Close()
	}
	if s.terminal != nil {
		s.terminal.Close()
	}
}

// connectTerminal makes t the container's. It takes over both, also on error.
func connectTerminal(c *state.Container, t *terminal.Terminal, output *os.File) error {
	if err := t.Relay(output); err != nil {
		t.Close()
		return fmt.Errorf("connect terminal: %w", err)
	}
	c.SetTerminal(t)
	return nil
}

// finishTerminal brings what an ended container printed into its FIFO.
func finishTerminal(ctx context.Context, c *state.Container) {
	t := c.TakeTerminal()
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, terminalPatience)
	defer cancel()
	if err := t.Finish(ctx); err != nil {
		klog.ErrorS(err, "Failed to end the terminal of a container", "container", c.ID())
	}
}

// RecoverStdio takes over the terminal and the input of a container that an earlier
// daemon started. Its streams are open.
func (*Service) RecoverStdio(c *state.Container, sb engine.Sandbox) error {
	if c.Streams().InputEnded() {
		// That daemon may have died between the end and letting go.
		if err := releaseHeld(sb, c, heldStdin); err != nil {
			return err
		}
	}
	if !c.Config().GetTty() {
		return nil
	}
	h, err := holder(sb)
	if err != nil {
		return err
	}
	master, err := h.Held(c.ID(), heldTerminal)
	if errdefs.IsNotFound(err) && c.Status().StartedAt == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	t, err := terminal.Adopt(master)
	if err != nil {
		return err
	}
	stdio, err := c.Streams().Stdio()
	if err != nil {
		t.Close()
		return err
	}
	stdio[0].Close()
	return connectTerminal(c, t, stdio[1])
}

func holder(sb engine.Sandbox) (engine.Holder, error) {
	return engine.Ability[engine.Holder](sb, "hold open what outlives the daemon")
}

// releaseHeld lets go of a file that the sandbox holds for a container.
func releaseHeld(sb engine.Sandbox, c *state.Container, name string) error {
	h, err := holder(sb)
	if err != nil {
		return err
	}
	return h.Release(c.ID(), name)
}

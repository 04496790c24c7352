package stream

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// CheckExec says whether Exec could begin now.
func (s *Service) CheckExec(id string, cmd []string) error {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return err
	}
	_, err = execProcess(c, cmd, false)
	return err
}

// Exec runs a command in a running container for a client and returns its exit
// code.
//
// A client that goes away (ctx) hangs up, as one of a terminal line does: the
// command gets SIGHUP, its whole foreground with a terminal, and its terminal or
// pipes are closed. What ignores that runs on, which is how nohup works. The error
// is then that of ctx.
func (s *Service) Exec(ctx context.Context, id string, cmd []string, client ClientStreams) (int, error) {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return 0, err
	}
	code, err := s.exec(ctx, c, cmd, client)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID(), err)
	}
	return code, nil
}

func (s *Service) exec(ctx context.Context, c *state.Container, cmd []string, client ClientStreams) (int, error) {
	process, err := execProcess(c, cmd, client.Terminal)
	if err != nil {
		return 0, err
	}
	run, err := openSession(client)
	if err != nil {
		return 0, err
	}
	defer run.close()
	if err := s.startSession(ctx, c, run, engine.Exec{Process: process, Stdio: run.theirs}); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go run.copyInput(ctx)
	copied := run.copyOutput(cancel)

	ended := make(chan error, 1)
	var status engine.ExitStatus
	s.work.Go("wait for a command in container "+c.ID(), func(life context.Context) {
		// To the end, whoever waits: the sandbox keeps the status until then.
		var err error
		status, err = run.command.Wait(life)
		ended <- err
	})
	select {
	case err := <-ended:
		if err != nil {
			return 0, err
		}
	case <-ctx.Done():
		run.hangUp(ctx)
		return 0, context.Cause(ctx)
	}
	close(run.last)
	select {
	case <-copied:
	case <-ctx.Done():
	}
	return status.Code, nil
}

// execProcess is what to run in a container.
func execProcess(c *state.Container, cmd []string, tty bool) (*specs.Process, error) {
	if err := c.RequireRunning(); err != nil {
		return nil, err
	}
	containerSpec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	return spec.Exec(containerSpec, cmd, tty)
}

func (s *Service) startSession(ctx context.Context, c *state.Container, run *session, e engine.Exec) error {
	sandbox, done, err := c.Pod.BeginOperation()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if run.command, err = sandbox.StartExec(ctx, c.ID(), e); err != nil {
		return err
	}
	run.closeTheirs()
	return nil
}

// session is a command and its client.
type session struct {
	client   ClientStreams
	command  engine.Command
	terminal *terminal.Terminal // nil without one
	theirs   [3]*os.File        // the command's ends
	in       *os.File           // our end of a pipe, nil without
	outs     [2]*os.File        // likewise
	last     chan struct{}      // closed when the command has ended
}

// openSession makes the terminal, or a pipe for each stream that the client has.
func openSession(client ClientStreams) (*session, error) {
	s := &session{client: client, last: make(chan struct{})}
	cu := cleanup.Make(s.close)
	defer cu.Clean()
	var err error
	if client.Terminal {
		var slave *os.File
		if s.terminal, slave, err = terminal.Open(); err != nil {
			return nil, err
		}
		s.theirs = [3]*os.File{slave, slave, slave}
		cu.Release()
		return s, nil
	}
	if client.In != nil {
		if s.theirs[0], s.in, err = inputPipe(); err != nil {
			return nil, fmt.Errorf("make pipe: %w", err)
		}
	}
	for i, w := range []io.Writer{client.Out, client.Err} {
		if w == nil {
			continue
		}
		if s.outs[i], s.theirs[i+1], err = outputPipe(); err != nil {
			return nil, fmt.Errorf("make pipe: %w", err)
		}
	}
	cu.Release()
	return s, nil
}

// copyInput gives the command what the client sends, and the client's end of it:
// without a terminal, as the end of its stdin.
func (s *session) copyInput(ctx context.Context) {
	signal := signaler(ctx, s.command.Signal)
	if s.terminal != nil && s.client.Resize != nil {
		go followSize(ctx, s.terminal, s.client.Resize, signal)
	}
	switch {
	case s.client.In == nil:
	case s.terminal != nil:
		_, _ = io.Copy(s.terminal.InputWriter(signal), s.client.In)
	default:
		_, _ = io.Copy(s.in, s.client.In)
		s.in.Close()
	}
}

// copyOutput begins to write what the command prints, and closes the channel that
// it returns after the last of it. A client that cannot be written to is gone.
func (s *session) copyOutput(gone func(error)) <-chan struct{} {
	var wg sync.WaitGroup
	pump := func(w io.Writer, r source) {
		wg.Go(func() {
			if err := drain(w, r, s.last, execDrain); err != nil {
				gone(fmt.Errorf("write to the client: %w", err))
			}
		})
	}
	if s.terminal != nil {
		w := s.client.Out
		if w == nil {
			w = io.Discard
		}
		pump(w, s.terminal)
	}
	for i, w := range []io.Writer{s.client.Out, s.client.Err} {
		if s.outs[i] != nil {
			pump(w, s.outs[i])
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	return done
}

// hangUp tells a command that its client is gone. It may have ended.
func (s *session) hangUp(ctx context.Context) {
	signaler(ctx, s.command.Signal)(unix.SIGHUP)
}

// close closes the daemon's ends. Without its master a terminal is hung up.
func (s *session) close() {
	s.closeTheirs()
	if s.terminal != nil {
		s.terminal.Close()
	}
	for _, f := range []*os.File{s.in, s.outs[0], s.outs[1]} {
		f.Close() // nil and closed ones answer an error
	}
}

func (s *session) closeTheirs() {
	for _, f := range s.theirs {
		f.Close()
	}
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// CheckAttach says whether Attach could begin now.
func (s *Service) CheckAttach(id string, stdin, tty bool) error {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return err
	}
	return checkAttach(c, stdin, tty)
}

func checkAttach(c *state.Container, stdin, tty bool) error {
	streams := c.Streams()
	switch ph := c.Phase(); {
	case ph != lifecycle.Running || streams == nil:
		return fmt.Errorf("container %s is %s, not running: %w", c.ID(), ph, errdefs.ErrFailedPrecondition)
	case tty != c.Config().GetTty():
		return fmt.Errorf("container %s runs with tty=%t, attach asks for tty=%t: %w", c.ID(), c.Config().GetTty(), tty, errdefs.ErrInvalidArgument)
	case stdin && !c.Config().GetStdin():
		return fmt.Errorf("container %s has no stdin: %w", c.ID(), errdefs.ErrFailedPrecondition)
	case stdin && streams.InputEnded():
		return fmt.Errorf("stdin of container %s was for one client (stdinOnce), which has been there: %w", c.ID(), errdefs.ErrFailedPrecondition)
	case tty && c.Terminal() == nil:
		return fmt.Errorf("the terminal of container %s is lost: %w", c.ID(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Attach connects a client with a running container: it gets what is printed from
// now on, and what it sends is the container's input. Any number of clients may
// be attached; one that reads more slowly than the container prints is dropped
// with logs.ErrLagged.
//
// It returns when the container has ended, the client has gone (ctx), or it has
// sent all its input; but the first client of a container with stdinOnce and
// without a terminal stays for the answer, and the container sees the end.
func (s *Service) Attach(ctx context.Context, id string, client ClientStreams) error {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return err
	}
	if err := s.attach(ctx, c, client); err != nil {
		return fmt.Errorf("attach to container %s: %w", c.ID(), err)
	}
	return nil
}

func (s *Service) attach(ctx context.Context, c *state.Container, client ClientStreams) error {
	if err := checkAttach(c, client.In != nil, client.Terminal); err != nil {
		return err
	}
	if err := c.Pod.RequireTakenOver(); err != nil {
		return err
	}
	streams, term, sandbox := c.Streams(), c.Terminal(), c.Pod.Sandbox()
	if streams == nil || sandbox == nil || client.Terminal && term == nil {
		return fmt.Errorf("it has just ended: %w", errdefs.ErrFailedPrecondition)
	}
	follower, err := streams.Follow()
	if err != nil {
		return err
	}
	defer follower.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	inputEnd := make(chan error, 1)
	if client.In != nil {
		in, err := openInput(ctx, c, streams, term, sandbox)
		if err != nil {
			return err
		}
		defer in.close()
		go in.copy(client.In, inputEnd)
	}
	if term != nil && client.Resize != nil {
		go followSize(ctx, term, client.Resize, foreground(ctx, sandbox, c))
	}
	outputEnd := make(chan error, 1)
	go func() { outputEnd <- copyOutput(ctx, client, follower) }()

	select {
	case err = <-outputEnd:
	case err = <-inputEnd:
	case <-follower.Dropped():
		err = logs.ErrLagged
	case <-ctx.Done():
	}
	return err
}

// foreground sends the signals of a terminal to a container, where the host's kernel
// does not.
func foreground(ctx context.Context, sandbox engine.Sandbox, c *state.Container) func(unix.Signal) {
	s, ok := sandbox.(engine.TerminalSignaler)
	if !ok {
		return func(unix.Signal) {}
	}
	return signaler(ctx, func(ctx context.Context, sig int) error { return s.SignalForeground(ctx, c.ID(), sig) })
}

// copyOutput writes what the client wants until the container ends.
func copyOutput(ctx context.Context, client ClientStreams, f *logs.Follower) error {
	for {
		chunk, err := f.Next(ctx)
		if err == io.EOF || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w := client.Out
		if chunk.Stderr {
			w = client.Err
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return fmt.Errorf("write to the client: %w", err)
		}
	}
}

// input is the way of one client to a container's stdin or terminal.
type input struct {
	w    io.Writer
	last bool // the container sees the end
	once sync.Once
	end  func()
}

func openInput(ctx context.Context, c *state.Container, streams *logs.Streams, term *terminal.Terminal, sandbox engine.Sandbox) (*input, error) {
	if term != nil {
		return &input{w: term.InputWriter(foreground(ctx, sandbox, c)), end: func() {}}, nil
	}
	fifo, err := streams.Input()
	if err != nil {
		return nil, err
	}
	in := &input{w: fifo, last: c.Config().GetStdinOnce(), end: func() { fifo.Close() }}
	if !in.last {
		return in, nil
	}
	// Written down first: should the daemon die, this client is gone, too, and the
	// next daemon lets the container see the end.
	if err := streams.EndInput(); err != nil {
		fifo.Close()
		return nil, err
	}
	in.end = func() {
		fifo.Close()
		if err := releaseHeld(sandbox, c, heldStdin); err != nil {
			klog.ErrorS(err, "Failed to end the stdin of a container", "container", c.ID())
		}
	}
	return in, nil
}

// copy moves a client's input to its end and says so, unless the client stays.
func (in *input) copy(r io.Reader, ended chan<- error) {
	_, err := io.Copy(in.w, r)
	in.close()
	if errors.Is(err, unix.EPIPE) {
		return // the container reads no more, and may well print
	}
	if !in.last {
		ended <- err
	}
}

// close ends the input. It is idempotent.
func (in *input) close() { in.once.Do(in.end) }

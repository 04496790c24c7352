package cri

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/stream"
)

// What follows is what to do once a client has come with its token. It converts,
// and bounds the connections that are forwarded.

// executor implements remotecommand.Executor.
type executor struct{ pods *stream.Service }

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	defer client(ctx).closeSoon() // who does not read the end is not waited for
	code, err := e.pods.Exec(ctx, id, cmd, streamsOf(ctx, in, out, errOut, tty, sizes))
	if err != nil {
		return ended(ctx, "Exec", id, err)
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// attacher implements remotecommand.Attacher. Over WebSocket the library makes a
// stream for stdin whether it was asked for or not.
type attacher struct {
	pods  *stream.Service
	stdin bool
}

// AttachContainer implements remotecommand.Attacher.
func (a attacher) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) error {
	defer client(ctx).closeSoon()
	if !a.stdin {
		in = nil
	}
	return ended(ctx, "Attach", id, a.pods.Attach(ctx, id, streamsOf(ctx, in, out, errOut, tty, sizes)))
}

// maxForwarded bounds the connections that are forwarded at once: one stream can
// carry any number of them, and each takes descriptors.
const maxForwarded = 2000

// forwarder implements portforward.PortForwarder.
type forwarder struct {
	pods   *stream.Service
	places chan struct{} // full when no more are served
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, id, _ string, port int32, stream io.ReadWriteCloser) error {
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	default:
		return fmt.Errorf("%d connections are forwarded, and no more are at once: %w", cap(f.places), errdefs.ErrResourceExhausted)
	}
	return ended(ctx, "PortForward", id, f.pods.PortForward(ctx, id, port, stream))
}

// ended logs the end of a stream, as the interceptors do of a call. A client that
// has gone hears no error, and is none.
func ended(ctx context.Context, method, id string, err error) error {
	if err == nil {
		return nil
	}
	klog.V(2).InfoS("Stream", "method", method, "id", id, "err", err)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// streamsOf converts the streams of a client. An interface that holds nothing is
// not the same as none.
func streamsOf(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) stream.ClientStreams {
	s := stream.ClientStreams{In: in, Terminal: tty}
	if out != nil {
		s.Out = out
	}
	if errOut != nil && !tty {
		s.Err = errOut
	}
	if tty && sizes != nil {
		s.Resize = sizesOf(ctx, sizes)
	}
	return s
}

func sizesOf(ctx context.Context, from <-chan remotecommand.TerminalSize) <-chan stream.TerminalSize {
	to := make(chan stream.TerminalSize)
	go func() {
		defer close(to)
		for size := range from {
			select {
			case to <- stream.TerminalSize{Rows: size.Height, Columns: size.Width}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// exitError is an exit code other than 0, in the form that the protocol's side
// takes it: k8s.io/utils/exec.ExitError.
type exitError int

func (e exitError) Error() string   { return fmt.Sprintf("command terminated with exit code %d", int(e)) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return int(e) }

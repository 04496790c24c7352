package cri

import (
	"context"
	"fmt"
	"io"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox"
)

// streamRuntime implements streaming.Runtime: what to do once a client has come
// with its token. It converts, and nothing else.
type streamRuntime struct{ pods *podsandbox.Manager }

var _ streaming.Runtime = (*streamRuntime)(nil)

// Exec implements streaming.Runtime.
func (r *streamRuntime) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) error {
	ctx, end := client(ctx)
	defer end()
	code, err := r.pods.Exec(ctx, id, cmd, streamsOf(ctx, in, out, errOut, tty, sizes))
	if err != nil {
		return ended(ctx, "Exec", id, err)
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// withoutStdin follows the id in an attach request without stdin. Over WebSocket
// the library makes a stream for stdin whether it was asked for or not; the id is
// what it carries unchanged from the request to Attach.
const withoutStdin = "/without-stdin"

func markStdin(req *runtimeapi.AttachRequest) *runtimeapi.AttachRequest {
	if req.GetStdin() {
		return req
	}
	return &runtimeapi.AttachRequest{
		ContainerId: req.GetContainerId() + withoutStdin,
		Tty:         req.GetTty(), Stdout: req.GetStdout(), Stderr: req.GetStderr(),
	}
}

// Attach implements streaming.Runtime.
func (r *streamRuntime) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) error {
	ctx, end := client(ctx)
	defer end()
	id, without := strings.CutSuffix(id, withoutStdin)
	if without {
		in = nil
	}
	return ended(ctx, "Attach", id, r.pods.Attach(ctx, id, streamsOf(ctx, in, out, errOut, tty, sizes)))
}

// PortForward implements streaming.Runtime.
func (r *streamRuntime) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	return ended(ctx, "PortForward", id, r.pods.PortForward(ctx, id, port, stream))
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
func streamsOf(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize) podsandbox.ClientStreams {
	s := podsandbox.ClientStreams{In: in, Terminal: tty}
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

func sizesOf(ctx context.Context, from <-chan remotecommand.TerminalSize) <-chan podsandbox.TerminalSize {
	to := make(chan podsandbox.TerminalSize)
	go func() {
		defer close(to)
		for size := range from {
			select {
			case to <- podsandbox.TerminalSize{Rows: size.Height, Columns: size.Width}:
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

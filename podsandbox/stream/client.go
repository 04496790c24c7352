package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// TerminalSize is the size of a client's terminal.
type TerminalSize = terminal.Size

// ClientStreams are the streams of a client of Exec or Attach. The owner ends
// their blocked reads and writes once the call has returned.
type ClientStreams struct {
	In       io.Reader // nil if it sends nothing
	Out, Err io.Writer // nil if it does not want them

	// Terminal says that the client has a terminal; then Err is nil.
	Terminal bool
	// Resize tells the terminal's size and its changes; nil if it does not.
	Resize <-chan TerminalSize
}

// signalPatience bounds the delivery of a signal that a key or a window sends.
const signalPatience = 10 * time.Second

// signaler sends a signal to the foreground of a terminal. What cannot be reached
// any more is about to end; the client sees that.
func signaler(ctx context.Context, send func(context.Context, int) error) func(unix.Signal) {
	return func(sig unix.Signal) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signalPatience)
		defer cancel()
		if err := send(ctx, int(sig)); err != nil {
			klog.V(2).InfoS("Send a signal to a terminal", "signal", unix.SignalName(sig), "err", err)
		}
	}
}

// followSize gives a terminal the client's sizes until ctx or they end.
func followSize(ctx context.Context, t *terminal.Terminal, sizes <-chan TerminalSize, signal func(unix.Signal)) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			changed, err := t.Resize(size)
			if err != nil {
				return // closed
			}
			if changed {
				signal(unix.SIGWINCH)
			}
		}
	}
}

// source is what drain reads.
type source interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// drain copies until the source ends or, once last is closed, is silent for so
// long: who has ended may have left behind somebody who holds the other end. Time
// in which the reader is slow does not count. An error of the writer is returned.
func drain(w io.Writer, r source, last <-chan struct{}, silence time.Duration) error {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-last:
			_ = r.SetReadDeadline(time.Now().Add(silence))
		case <-stop:
		}
	}()
	buf := make([]byte, 32<<10)
	waited := false // a whole silence, with nothing to read
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && waited:
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return nil // the end; EIO is a terminal's
		}
		select {
		case <-last:
			// A deadline that passed while this did not read says nothing.
			waited = n == 0 && err != nil
			_ = r.SetReadDeadline(time.Now().Add(silence))
		default:
		}
	}
}

package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// controlSocketName is the Sentry's socket, in Config.Dir.
const controlSocketName = "control.sock"

// controlPlane makes the calls of a sandbox's control socket, and gives their errors a
// class: one that comes of the end of the process says how that has ended. It owns no
// state of its own, and holds no lock across a call.
type controlPlane struct {
	sentry *sentry
	socket controlSocket // for the callers that look at an error before it has its class
}

func newControlPlane(s *sentry) *controlPlane {
	return &controlPlane{sentry: s, socket: controlSocket(filepath.Join(s.dir, controlSocketName))}
}

// call is that of the socket, with an error that is explained.
func (c *controlPlane) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	return c.explain(c.socket.call(ctx, method, arg, result, files...))
}

// callWith is that of the socket, with an error that is explained.
func (c *controlPlane) callWith(ctx context.Context, method string, arg, result any, fds fdCopies) error {
	return c.explain(c.socket.callWith(ctx, method, arg, result, fds))
}

// explain classifies the error of a control call. A connection that breaks
// because the sandbox process has ended is reported as that, with what it said last.
func (c *controlPlane) explain(err error) error {
	if isBrokenConnection(err) && c.sentry.diedWithin(context.Background(), time.Second) {
		return c.sentry.deathError()
	}
	return classify(err)
}

// wait parks a call that returns a wait status. The end of the sandbox is
// SIGKILL to all in it.
func (c *controlPlane) wait(ctx context.Context, method string, arg any) (engine.ExitStatus, error) {
	// The connection breaks with the process, unless that gave its end to somebody.
	parked, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.sentry.proc.life, func() { time.AfterFunc(2*time.Second, cancel) })()
	for {
		var ws uint32
		err := c.socket.park(parked, method, arg, &ws, nil)
		if err == nil {
			return exitStatus(unix.WaitStatus(ws)), nil
		}
		outlived := parked.Err() != nil && ctx.Err() == nil
		if !isBrokenConnection(err) && !outlived {
			return engine.ExitStatus{}, classify(err)
		}
		if outlived || c.sentry.diedWithin(ctx, 2*time.Second) {
			killed := engine.ExitStatus{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}
			return killed, c.sentry.deathError()
		}
		// The process lives, so the answer can still be had: a status is kept
		// until the container is destroyed.
		if ctx.Err() != nil {
			return engine.ExitStatus{}, ctx.Err()
		}
		if errors.Is(err, os.ErrNotExist) {
			return engine.ExitStatus{}, classify(err)
		}
	}
}

func exitStatus(ws unix.WaitStatus) engine.ExitStatus {
	if ws.Signaled() {
		return engine.ExitStatus{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	// Of an exit, these are its code; of what no end is, they are in range.
	return engine.ExitStatus{Code: int(ws>>8) & 0xff}
}

// takePlace makes a container known to the sandbox. One that is known and was
// never started is left from a daemon that died in between.
func (c *controlPlane) takePlace(ctx context.Context, id string, tty []*os.File) error {
	err := c.socket.call(ctx, methodCreate, createArgs{CID: id}, nil, tty...)
	if err == nil {
		return nil
	}
	if !errors.Is(classify(err), errdefs.ErrAlreadyExists) {
		return c.explain(err)
	}
	var state int
	if serr := c.socket.call(ctx, methodState, id, &state); serr != nil || state != guestStateCreating {
		return fmt.Errorf("it was started before: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if err := c.call(ctx, methodDestroy, id, nil); err != nil {
		return err
	}
	return c.call(ctx, methodCreate, createArgs{CID: id}, nil, tty...)
}

// destroy removes a container from the sandbox. Its error does not wait for the end of
// the process.
func (c *controlPlane) destroy(ctx context.Context, id string) error {
	return classify(c.socket.call(ctx, methodDestroy, id, nil))
}

// state is one of the guestStates, or another number.
func (c *controlPlane) state(ctx context.Context, id string) (state int, err error) {
	err = c.call(ctx, methodState, id, &state)
	return state, err
}

// processes lists those of a container, the first one first.
func (c *controlPlane) processes(ctx context.Context, id string) ([]guestProcess, error) {
	var ps []guestProcess
	if err := c.call(ctx, methodProcesses, id, &ps); err != nil {
		return nil, err
	}
	return ps, nil
}

// commands is processes with the names of their programs.
func (c *controlPlane) commands(ctx context.Context, id string) ([]guestCommand, error) {
	var ps []guestCommand
	if err := c.call(ctx, methodProcesses, id, &ps); err != nil {
		return nil, err
	}
	return ps, nil
}

// firstProcess is the pid of the first process of a container, in the root pid
// namespace.
func (c *controlPlane) firstProcess(ctx context.Context, id string) (int32, error) {
	ps, err := c.processes(ctx, id)
	if err != nil {
		return 0, err
	}
	if len(ps) == 0 {
		return 0, fmt.Errorf("container %s has no process: %w", id, errdefs.ErrFailedPrecondition)
	}
	return ps[0].PID, nil
}

func (c *controlPlane) signal(ctx context.Context, arg signalArgs) error {
	return c.call(ctx, methodSignal, arg, nil)
}

func (c *controlPlane) signalGroup(ctx context.Context, id string, group int32, sig unix.Signal) error {
	return c.signal(ctx, signalArgs{CID: id, Signo: int32(sig), PID: group, Mode: signalGroup})
}

// maxRead is how long a file of the sandbox may be that is read, in bytes.
const maxRead = 64 << 10

// readFile reads a file as the root container sees it.
func (c *controlPlane) readFile(ctx context.Context, name string) ([]byte, error) {
	out, err := sizedMemoryFile("read", maxRead)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := c.call(ctx, methodReadFile, readFileArgs{ContainerID: c.sentry.root, Path: name}, nil, out); err != nil {
		return nil, err
	}
	b := make([]byte, maxRead)
	if _, err := out.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b, "\x00"), nil // none of these files has any
}

// kindOf tells what a path is, as the root container sees it.
func (c *controlPlane) kindOf(ctx context.Context, target string) (pathKind, error) {
	out, err := sizedMemoryFile("read", 1)
	if err != nil {
		return absent, err
	}
	defer out.Close()
	err = c.call(ctx, methodReadFile, readFileArgs{ContainerID: c.sentry.root, Path: target, Size: 1}, nil, out)
	switch {
	case err == nil:
		return file, nil
	case isMissing(err):
		return absent, nil
	case isAnswer(err, "is a directory"):
		return directory, nil
	}
	return absent, err
}

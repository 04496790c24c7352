package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
)

// The methods of the control socket that only people call.
const (
	methodStacks = "debug.Stacks"
	methodLog    = "Logging.Change"
	methodEvent  = "containerManager.Event"

	methodHeap       = "Profile.Heap"
	methodCPUProfile = "Profile.CPU"
	methodTrace      = "Profile.Trace"
)

// Debug asks a running sandbox about itself, over its control socket, without an
// Engine: also of a daemon that hangs, or does not run. All methods are safe for
// concurrent use; a sandbox that does not answer ends them with their context. A
// sandbox that is gone is errdefs.ErrUnavailable.
type Debug struct {
	dir     string
	control controlSocket
}

// OpenDebug names the sandbox whose Config.Dir is dir. It touches nothing.
func OpenDebug(dir string) *Debug {
	return &Debug{dir: dir, control: controlSocket(filepath.Join(dir, controlSocketName))}
}

func (d *Debug) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	fds, err := copyFDs(files)
	if err != nil {
		return err
	}
	defer fds.close()
	err = d.control.park(ctx, method, arg, result, fds)
	switch {
	case err == nil || !isBrokenConnection(err):
		return classify(err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the sandbox has no control socket: %w: %w", err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("the sandbox is gone: %w: %w", err, errdefs.ErrUnavailable)
}

// Stacks returns the stacks of the Sentry's goroutines, as Go prints them. Like all
// that a Debug returns they are fit for a terminal.
func (d *Debug) Stacks(ctx context.Context) (string, error) {
	var stacks string
	if err := d.call(ctx, methodStacks, struct{}{}, &stacks); err != nil {
		return "", fmt.Errorf("read stacks: %w", err)
	}
	return printable.Lines(stacks), nil
}

// GuestProcess is a process of a container, numbered as the container sees it.
type GuestProcess struct {
	UID     uint32  `json:"uid"`
	PID     int32   `json:"pid"`
	PPID    int32   `json:"ppid"`
	Threads []int32 `json:"threads"`
	TTY     string  `json:"tty"`
	STime   string  `json:"stime"` // when it started
	Time    string  `json:"time"`  // of the processor that it used
	Cmd     string  `json:"cmd"`
}

// Processes lists those of a container, or of the root container by the
// sandbox's id.
func (d *Debug) Processes(ctx context.Context, container string) ([]GuestProcess, error) {
	var ps []GuestProcess
	if err := d.call(ctx, methodProcesses, container, &ps); err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", container, err)
	}
	for i := range ps {
		for _, text := range []*string{&ps[i].TTY, &ps[i].STime, &ps[i].Time, &ps[i].Cmd} {
			*text = quoted(*text, maxQuote)
		}
	}
	return ps, nil
}

// Event returns what the Sentry has counted for a container, in its own form,
// which is that of `runc events`.
func (d *Debug) Event(ctx context.Context, container string) (json.RawMessage, error) {
	var out struct {
		Event json.RawMessage `json:"event"`
	}
	if err := d.call(ctx, methodEvent, container, &out); err != nil {
		return nil, fmt.Errorf("read events of %s: %w", container, err)
	}
	return asciiJSON(out.Event), nil
}

// LogPath is the sandbox's verbose log; it is there with Options.Debug alone.
func (d *Debug) LogPath() string { return filepath.Join(d.dir, bootLogName) }

type logArgs struct {
	SetLevel bool
	Level    string
}

// SetLogLevel changes what goes to the log at LogPath: warning, info or debug. A
// sandbox without that log is errdefs.ErrFailedPrecondition.
func (d *Debug) SetLogLevel(ctx context.Context, level string) error {
	switch level {
	case "warning", "info", "debug":
	default:
		return fmt.Errorf("log level %q is none of warning, info, debug: %w", level, errdefs.ErrInvalidArgument)
	}
	if _, err := os.Stat(d.LogPath()); err != nil {
		return fmt.Errorf("the sandbox was booted without a log: %w", errdefs.ErrFailedPrecondition)
	}
	if err := d.call(ctx, methodLog, logArgs{SetLevel: true, Level: level}, nil); err != nil {
		return fmt.Errorf("set log level: %w", err)
	}
	return nil
}

type heapArgs struct {
	Delay time.Duration `json:"delay"` // ns
}

type profileArgs struct {
	Duration time.Duration `json:"duration"` // ns
}

// Heap writes a profile of the Sentry's heap to a file, which stays the caller's.
// Like the next two it needs a sandbox that was booted with Options.Profile;
// another is errdefs.ErrFailedPrecondition.
func (d *Debug) Heap(ctx context.Context, to *os.File) error {
	return d.profile(ctx, methodHeap, heapArgs{}, to)
}

// CPUProfile writes a profile of the processor's use over a time.
func (d *Debug) CPUProfile(ctx context.Context, over time.Duration, to *os.File) error {
	return d.profile(ctx, methodCPUProfile, profileArgs{over}, to)
}

// Trace writes a trace of the Go runtime over a time.
func (d *Debug) Trace(ctx context.Context, over time.Duration, to *os.File) error {
	return d.profile(ctx, methodTrace, profileArgs{over}, to)
}

func (d *Debug) profile(ctx context.Context, method string, arg any, to *os.File) error {
	err := d.call(ctx, method, arg, nil, to)
	var answered *remoteError
	if errors.As(err, &answered) && answered.message == "unknown method" {
		return fmt.Errorf("the sandbox was booted without profiling: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return fmt.Errorf("profile the sandbox: %w", err)
	}
	return nil
}

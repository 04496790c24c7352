package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

const (
	maxPluginOutput = 1 << 20 // bytes on stdout; results are a few KiB
	maxPluginStderr = 4 << 10 // bytes kept of stderr, the last ones
	maxQuoted       = 256     // bytes of output in an error

	// pluginWaitDelay is how long the output of a plugin that has ended may be
	// held open by a child that it left behind.
	pluginWaitDelay = 500 * time.Millisecond

	// A plugin that is being installed is busy for a moment.
	busyTries = 10
	busyDelay = 50 * time.Millisecond
)

// runner runs plugin processes for libcni. It has no state.
type runner struct {
	version.PluginDecoder
}

var _ invoke.Exec = (*runner)(nil)

// FindInPath returns the path of a plugin; one that is missing is
// errdefs.ErrUnavailable, since it may yet be installed.
func (*runner) FindInPath(plugin string, dirs []string) (string, error) {
	if plugin == "" || plugin != filepath.Base(plugin) {
		return "", fmt.Errorf("CNI plugin type %q is not the name of a program: %w", plugin, errdefs.ErrFailedPrecondition)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, plugin)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errorOf(errdefs.ErrUnavailable, "CNI plugin %s is not in %s", plugin, strings.Join(dirs, " or "))
}

// ExecPlugin runs a plugin and returns what it printed. When ctx ends, the plugin
// and its children are killed, and the error says that it did not end in time.
func (*runner) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	run := pluginRun{
		path:    path,
		command: commandOf(env),
		stdin:   stdin,
		env:     env,
	}
	for try := 1; ; try++ {
		out, err := run.do(ctx)
		if !errors.Is(err, unix.ETXTBSY) || try == busyTries {
			return out, err
		}
		select {
		case <-time.After(busyDelay):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// commandOf returns CNI_COMMAND. The last one counts, as it does in a process.
func commandOf(env []string) string {
	command := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			command = v
		}
	}
	return command
}

// pluginRun is one plugin with one command.
type pluginRun struct {
	path    string
	command string
	stdin   []byte
	env     []string
}

func (r pluginRun) do(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	stdout := &boundedOutput{max: maxPluginOutput, over: cancel}
	stderr := &tailOutput{max: maxPluginStderr}
	cmd := exec.CommandContext(ctx, r.path)
	cmd.Env = r.env
	cmd.Stdin = bytes.NewReader(r.stdin)
	cmd.Stdout = stdout
	cmd.Stderr = stderr
	cmd.WaitDelay = pluginWaitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	// It leads its group and is not reaped yet, so the number cannot be another's.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

	// The kernel sends the parent-death signal when the thread that forked ends,
	// not the process: the thread has to live as long as the plugin.
	runtime.LockOSThread()
	err := cmd.Run()
	runtime.UnlockOSThread()

	// A child that the plugin left behind holds the output; the plugin has ended well.
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil
	}
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("plugin %s did not end %s and was killed: %w", r.name(), r.command, context.Cause(ctx))
	}
	if err != nil {
		return nil, r.failure(err, stdout.Bytes(), stderr.Bytes())
	}
	if r.command == "ADD" && !isObject(stdout.Bytes()) {
		return nil, fmt.Errorf("plugin %s printed no CNI result for ADD but %s", r.name(), quoted(stdout.Bytes()))
	}
	return stdout.Bytes(), nil
}

func (r pluginRun) name() string { return filepath.Base(r.path) }

// failure says why a plugin failed: in its own words if it speaks CNI, else with
// all that it printed.
func (r pluginRun) failure(err error, stdout, stderr []byte) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run plugin %s: %w", r.name(), err)
	}
	said := &types.Error{}
	if json.Unmarshal(stdout, said) == nil && (said.Msg != "" || said.Code != 0) {
		return fmt.Errorf("plugin %s refused %s with code %d: %w", r.name(), r.command, said.Code, said)
	}
	return fmt.Errorf("plugin %s ended %s with %s and printed %s, on stderr %s",
		r.name(), r.command, exit.ProcessState, quoted(stdout), quoted(stderr))
}

func isObject(b []byte) bool {
	var o map[string]json.RawMessage
	return json.Unmarshal(b, &o) == nil && o != nil
}

// quoted shows the beginning of an output on one line.
func quoted(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return "nothing"
	}
	if len(b) > maxQuoted {
		return fmt.Sprintf("%q and %d bytes more", b[:maxQuoted], len(b)-maxQuoted)
	}
	return fmt.Sprintf("%q", b)
}

// boundedOutput keeps an output up to a size, and ends the run beyond it.
type boundedOutput struct {
	buf  []byte
	max  int
	over func(error)
}

func (o *boundedOutput) Write(p []byte) (int, error) {
	if len(o.buf)+len(p) > o.max {
		err := errorOf(errdefs.ErrUnavailable, "it printed more than %d bytes", o.max)
		o.over(err)
		return 0, err
	}
	o.buf = append(o.buf, p...)
	return len(p), nil
}

func (o *boundedOutput) Bytes() []byte { return o.buf }

// tailOutput keeps the end of an output.
type tailOutput struct {
	buf []byte
	max int
}

func (o *tailOutput) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	if extra := len(o.buf) - o.max; extra > 0 {
		o.buf = append(o.buf[:0], o.buf[extra:]...)
	}
	return len(p), nil
}

func (o *tailOutput) Bytes() []byte { return o.buf }

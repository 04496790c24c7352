package testenv

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// daemon is one run of `cri-sandbox serve`.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was reaped
	err  error         // of Wait; read after done
}

func (d *daemon) alive() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Start starts the daemon and returns when it answers and says it is ready,
// network included, unless the environment has none. It returns how long that took.
func (e *Env) Start(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := e.spawn(); err != nil {
		return 0, fmt.Errorf("start daemon: %w", err)
	}
	if err := e.waitReady(ctx, e.daemon); err != nil {
		return 0, fmt.Errorf("start daemon: %w\n%s", err, e.LogTail(20))
	}
	return time.Since(begin), nil
}

// spawn starts the daemon's process.
func (e *Env) spawn() error {
	if e.daemon != nil && e.daemon.alive() {
		return errors.New("it is running")
	}
	if err := e.made.watch(e.Root); err != nil {
		return err
	}
	log, err := os.OpenFile(e.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(cmp.Or(e.binary, e.opts.Binary), e.ServeArgs()...)
	cmd.Env = slices.Concat(os.Environ(), e.opts.DaemonEnv, e.binaryEnv)
	cmd.Stdout, cmd.Stderr = log, log
	// A Ctrl-C at the terminal is for the demo or the test, which then stops the
	// daemon in order; pods must be removed first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	e.daemon = d
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return nil
}

// Use makes binary the program of the next daemon, with these variables
// (NAME=value) added to its environment. Empty means Options.Binary again.
func (e *Env) Use(binary string, env ...string) { e.binary, e.binaryEnv = binary, env }

// ServeArgs are the arguments of the daemon's program.
func (e *Env) ServeArgs() []string {
	args := []string{"serve",
		"--config", e.configFile(),
		"--root", e.Root,
		"--state", e.State,
		"--listen", e.Endpoint,
		"--cni-conf-dir", e.CNIConfDir,
		"--cni-bin-dir", e.CNIBinDir,
		"--registry-config-dir", e.CertsDir,
	}
	if e.opts.NRI {
		args = append(args, "--nri-socket", e.NRISocket)
	}
	return append(args, e.opts.DaemonArgs...)
}

// waitReady polls Status until it is good, d has ended or a minute has passed.
func (e *Env) waitReady(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// The connection backs off after a refused dial; a start is no time to wait.
		e.Client.Conn.ResetConnectBackoff()
		last := e.ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("it ended: %v", d.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (e *Env) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := e.Client.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range r.GetStatus().GetConditions() {
		if !c.Status && !(e.opts.NoNetwork && c.Type == runtimeapi.NetworkReady) {
			return fmt.Errorf("%s is false: %s %s", c.Type, c.Reason, c.Message)
		}
	}
	return nil
}

// DaemonPID returns the pid of the running daemon, or 0.
func (e *Env) DaemonPID() int {
	if e.daemon == nil || !e.daemon.alive() {
		return 0
	}
	return e.daemon.cmd.Process.Pid
}

// DaemonDone is closed when the daemon that was started last has ended.
func (e *Env) DaemonDone() <-chan struct{} { return e.daemon.done }

// Kill ends the daemon with SIGKILL and waits until it is reaped. Pods run on.
func (e *Env) Kill() error { return e.end(context.Background(), syscall.SIGKILL) }

// Stop ends the daemon with SIGTERM and waits until it is reaped; when ctx ends
// first, or after 30 seconds, it is killed and that is an error. So is an exit
// status other than 0. Pods run on. A daemon that is not running is no error.
func (e *Env) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return e.end(ctx, syscall.SIGTERM)
}

func (e *Env) end(ctx context.Context, sig syscall.Signal) error {
	d := e.daemon
	if d == nil || !d.alive() {
		return nil
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal daemon: %w", err)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("stop daemon: still running after %v: %w", sig, ctx.Err())
	}
	if sig != syscall.SIGKILL && d.err != nil {
		return fmt.Errorf("stop daemon: %w\n%s", d.err, e.LogTail(20))
	}
	return nil
}

// Restart kills the daemon with SIGKILL and starts it again. It returns the time
// from the start of the new one until it was ready.
func (e *Env) Restart(ctx context.Context) (time.Duration, error) {
	if err := e.Kill(); err != nil {
		return 0, err
	}
	return e.Start(ctx)
}

// Spawn starts the daemon's process and does not wait until it is ready.
func (e *Env) Spawn() error {
	if err := e.spawn(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	return nil
}

// DaemonLog is the file with the output of all daemons of this environment.
func (e *Env) DaemonLog() string { return filepath.Join(e.Dir, "daemon.log") }

// LogTail returns the last n lines of the daemon's log, for error messages.
func (e *Env) LogTail(n int) string {
	b, err := os.ReadFile(e.DaemonLog())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}

// Crictl runs bin/crictl against this daemon and returns its combined output.
func (e *Env) Crictl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(e.Repo, "bin", "crictl"), append([]string{"--config", e.crictlConfig()}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run crictl %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

func (e *Env) crictlConfig() string { return filepath.Join(e.Dir, "crictl.yaml") }
func (e *Env) configFile() string   { return filepath.Join(e.Dir, "config.toml") }

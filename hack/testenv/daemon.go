package testenv

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Daemon is the daemon of a node: its program, what that is given, and its process.
// Start, Spawn, Stop and Kill must not overlap.
type Daemon struct {
	layout Layout
	opts   Options
	client *Client
	made   *podIDs

	binary string // of the next process, see Use
	env    []string
	last   *process // nil before the first
}

// process is one run of `cri-sandbox serve`.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it was reaped
	err  error         // of Wait; read after done
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Start starts the daemon and returns when it answers and says it is ready,
// network included, unless the environment has none. It returns how long that took.
func (d *Daemon) Start(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := d.spawn(); err != nil {
		return 0, fmt.Errorf("start daemon: %w", err)
	}
	if err := d.waitReady(ctx, d.last); err != nil {
		return 0, fmt.Errorf("start daemon: %w\n%s", err, d.LogTail(20))
	}
	return time.Since(begin), nil
}

// spawn starts the daemon's process.
func (d *Daemon) spawn() error {
	if d.last != nil && d.last.alive() {
		return errors.New("it is running")
	}
	if err := d.made.watch(d.layout.Root); err != nil {
		return err
	}
	log, err := os.OpenFile(d.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(cmp.Or(d.binary, d.opts.Binary), d.ServeArgs()...)
	cmd.Env = slices.Concat(os.Environ(), d.opts.DaemonEnv, d.env)
	cmd.Stdout, cmd.Stderr = log, log
	// A Ctrl-C at the terminal is for the demo or the test, which then stops the
	// daemon in order; pods must be removed first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	d.last = p
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return nil
}

// Use makes binary the program of the next daemon, with these variables
// (NAME=value) added to its environment. Empty means Options.Binary again.
func (d *Daemon) Use(binary string, env ...string) { d.binary, d.env = binary, env }

// ServeArgs are the arguments of the daemon's program.
func (d *Daemon) ServeArgs() []string {
	args := []string{"serve",
		"--config", d.layout.configFile(),
		"--root", d.layout.Root,
		"--state", d.layout.State,
		"--listen", d.layout.Endpoint,
		"--cni-conf-dir", d.layout.CNIConfDir,
		"--cni-bin-dir", d.layout.CNIBinDir,
		"--registry-config-dir", d.layout.CertsDir,
	}
	if d.opts.NRI {
		args = append(args, "--nri-socket", d.layout.NRISocket)
	}
	return append(args, d.opts.DaemonArgs...)
}

// waitReady polls Status until it is good, p has ended or a minute has passed.
func (d *Daemon) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// The connection backs off after a refused dial; a start is no time to wait.
		d.client.Conn.ResetConnectBackoff()
		last := d.ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %v", p.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := d.client.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range r.GetStatus().GetConditions() {
		if !c.Status && !(d.opts.NoNetwork && c.Type == runtimeapi.NetworkReady) {
			return fmt.Errorf("%s is false: %s %s", c.Type, c.Reason, c.Message)
		}
	}
	return nil
}

// PID returns the pid of the running daemon, or 0.
func (d *Daemon) PID() int {
	if d.last == nil || !d.last.alive() {
		return 0
	}
	return d.last.cmd.Process.Pid
}

// Done is closed when the daemon that was started last has ended.
func (d *Daemon) Done() <-chan struct{} { return d.last.done }

// Kill ends the daemon with SIGKILL and waits until it is reaped. Pods run on.
func (d *Daemon) Kill() error { return d.end(context.Background(), syscall.SIGKILL) }

// Stop ends the daemon with SIGTERM and waits until it is reaped; when ctx ends
// first, or after 30 seconds, it is killed and that is an error. So is an exit
// status other than 0. Pods run on. A daemon that is not running is no error.
func (d *Daemon) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.end(ctx, syscall.SIGTERM)
}

func (d *Daemon) end(ctx context.Context, sig syscall.Signal) error {
	p := d.last
	if p == nil || !p.alive() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal daemon: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("stop daemon: still running after %v: %w", sig, ctx.Err())
	}
	if sig != syscall.SIGKILL && p.err != nil {
		return fmt.Errorf("stop daemon: %w\n%s", p.err, d.LogTail(20))
	}
	return nil
}

// Restart kills the daemon with SIGKILL and starts it again. It returns the time
// from the start of the new one until it was ready.
func (d *Daemon) Restart(ctx context.Context) (time.Duration, error) {
	if err := d.Kill(); err != nil {
		return 0, err
	}
	return d.Start(ctx)
}

// Spawn starts the daemon's process and does not wait until it is ready.
func (d *Daemon) Spawn() error {
	if err := d.spawn(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	return nil
}

// LogFile is the file with the output of all daemons of this node.
func (d *Daemon) LogFile() string { return d.layout.daemonLog() }

// LogTail returns the last n lines of the daemon's log, for error messages.
func (d *Daemon) LogTail(n int) string {
	b, err := os.ReadFile(d.LogFile())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}

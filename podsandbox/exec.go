package podsandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// maxExecOutput bounds both streams of an answer together: the kubelet and crictl
// refuse a message of more than 16 MiB.
const maxExecOutput = 16<<20 - 4<<10

// truncationMark follows output that was cut.
const truncationMark = "\n[output truncated]\n"

// execDrain is how long output of a background child is awaited once the command
// itself has ended.
const execDrain = 200 * time.Millisecond

// ExecResult is what a command did.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int
}

// ExecSync runs a command in a running container. After timeout, zero meaning
// none, its whole process tree is killed and the error is context.DeadlineExceeded.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	c, err := m.findContainer(id)
	if err != nil {
		return ExecResult{}, err
	}
	if ph := c.phase(); ph != lifecycle.Running {
		return ExecResult{}, fmt.Errorf("container %s is %s, not running: %w", c.id(), ph, errdefs.ErrFailedPrecondition)
	}
	sandbox, leave, err := c.pod.enter()
	if err != nil {
		return ExecResult{}, err
	}
	defer leave()
	containerSpec, err := c.Spec()
	if err != nil {
		return ExecResult{}, err
	}
	process, err := spec.Exec(containerSpec, cmd, false)
	if err != nil {
		return ExecResult{}, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("command %q timed out after %s: %w", cmd, timeout, context.DeadlineExceeded))
		defer cancel()
	}
	res, err := capture(func(stdio [3]*os.File) (engine.ExitStatus, error) {
		return sandbox.Exec(ctx, c.id(), engine.Exec{Process: process, Stdio: stdio})
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %s: %w", c.id(), err)
	}
	return res, nil
}

// capture runs f with pipes as its output and collects what comes.
func capture(f func([3]*os.File) (engine.ExitStatus, error)) (ExecResult, error) {
	var res ExecResult
	var readers [2]*os.File
	var stdio [3]*os.File
	defer func() {
		for _, f := range append(readers[:], stdio[:]...) {
			f.Close() // nil and closed ones answer an error
		}
	}()
	for i := range readers {
		r, w, err := os.Pipe()
		if err != nil {
			return res, fmt.Errorf("make pipe: %w", err)
		}
		readers[i], stdio[i+1] = r, w
	}
	var bufs [2]bytes.Buffer
	var wg sync.WaitGroup
	var budget atomic.Int64
	budget.Store(maxExecOutput)
	for i := range readers {
		wg.Go(func() { readCapped(&bufs[i], readers[i], &budget) })
	}
	status, err := f(stdio)
	stdio[1].Close()
	stdio[2].Close()
	// A child in the background may hold the pipes for ever.
	for _, r := range readers {
		r.SetReadDeadline(time.Now().Add(execDrain))
	}
	wg.Wait()
	if err != nil {
		return res, err
	}
	return ExecResult{Stdout: bufs[0].Bytes(), Stderr: bufs[1].Bytes(), ExitCode: status.Code}, nil
}

// readCapped keeps the beginning, as far as the budget goes, and reads on, so
// that the command does not block on a full pipe.
func readCapped(buf *bytes.Buffer, r io.Reader, budget *atomic.Int64) {
	chunk := make([]byte, 32<<10)
	cut := false
	for {
		n, err := r.Read(chunk)
		if left := budget.Add(-int64(n)); left < 0 {
			n = int(max(int64(n)+left, 0))
			cut = true
		}
		buf.Write(chunk[:n])
		if err != nil {
			break
		}
	}
	if cut {
		buf.WriteString(truncationMark)
	}
}

// ReopenContainerLog opens the log file anew after a rotation.
func (m *Manager) ReopenContainerLog(_ context.Context, id string) error {
	c, err := m.findContainer(id)
	if err != nil {
		return err
	}
	streams := c.getStreams()
	if c.phase() != lifecycle.Running || streams == nil {
		return fmt.Errorf("container %s is %s, not running: %w", c.id(), c.phase(), errdefs.ErrFailedPrecondition)
	}
	if err := streams.Reopen(); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", c.id(), err)
	}
	return nil
}

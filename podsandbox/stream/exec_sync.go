package stream

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
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
func (s *Service) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return ExecResult{}, err
	}
	process, err := execProcess(c, cmd, false)
	if err != nil {
		return ExecResult{}, err
	}
	sandbox, done, err := c.Pod.BeginOperation()
	if err != nil {
		return ExecResult{}, err
	}
	defer done()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("command %q timed out after %s: %w", cmd, timeout, context.DeadlineExceeded))
		defer cancel()
	}
	res, err := capture(func(stdio [3]*os.File) (engine.ExitStatus, error) {
		return sandbox.Exec(ctx, c.ID(), engine.Exec{Process: process, Stdio: stdio})
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %s: %w", c.ID(), err)
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
		var err error
		if readers[i], stdio[i+1], err = outputPipe(); err != nil {
			return res, fmt.Errorf("make pipe: %w", err)
		}
	}
	var outs [2]output
	var wg sync.WaitGroup
	last := make(chan struct{})
	for i := range readers {
		wg.Go(func() { _ = drain(&outs[i], readers[i], last, execDrain) })
	}
	status, err := f(stdio)
	stdio[1].Close()
	stdio[2].Close()
	close(last)
	wg.Wait()
	if err != nil {
		return res, err
	}
	share(&outs[0], &outs[1])
	return ExecResult{Stdout: outs[0].bytes(), Stderr: outs[1].bytes(), ExitCode: status.Code}, nil
}

// output is one stream of a command, as far as it is kept.
type output struct {
	kept []byte
	cut  bool
}

// Write implements io.Writer. It keeps the beginning and takes the rest, so that the
// command does not block on a full pipe.
func (o *output) Write(b []byte) (int, error) {
	o.kept = append(o.kept, b...)
	o.limit(maxExecOutput)
	return len(b), nil
}

func (o *output) limit(n int) {
	if len(o.kept) > n {
		o.kept, o.cut = o.kept[:n], true
	}
}

func (o *output) bytes() []byte {
	if o.cut {
		return append(o.kept, truncationMark...)
	}
	return o.kept
}

// share cuts two streams to what an answer can hold. The smaller one keeps at
// least half.
func share(a, b *output) {
	half := maxExecOutput / 2
	a.limit(max(half, maxExecOutput-len(b.kept)))
	b.limit(max(half, maxExecOutput-len(a.kept)))
}

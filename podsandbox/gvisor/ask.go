package gvisor

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// askCapabilities hold within the sandbox only: to see the roots and descriptors of
// all processes.
var askCapabilities = []string{"CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"}

// ask runs a program in the root container, from where it sees all processes, and
// returns the size bytes that it writes to its descriptor 1; what it has not
// written is zero. For what the Sentry tells to nobody but to programs.
//
// One runs at a time. When ctx ends before it does it is killed; one that the Sentry
// cannot end keeps the next from being started, so that they do not pile up.
func (r *rootPrograms) ask(ctx context.Context, name string, code []byte, args []string, size int) ([]byte, error) {
	if err := r.asking.lock(ctx); err != nil {
		return nil, err
	}
	type answer struct {
		result []byte
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		defer r.asking.unlock()
		result, err := r.runAsked(ctx, name, code, args, size)
		got <- answer{result, err}
	}()
	select {
	case a := <-got:
		return a.result, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// runAsked returns when the program has ended, or the sandbox has.
func (r *rootPrograms) runAsked(ctx context.Context, name string, code []byte, argv []string, size int) ([]byte, error) {
	program, err := memoryFile(name, code)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	result := make([]byte, size)
	out, err := sizedMemoryFile(name, int64(size))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	patient := context.WithoutCancel(ctx)
	begin, cancel := context.WithTimeout(patient, callTimeout)
	defer cancel()
	pid, err := r.start(begin, rootProgram{file: program, args: append([]string{name}, argv...), capabilities: askCapabilities, stdout: out})
	if err != nil {
		return nil, err
	}
	stopKilling := context.AfterFunc(ctx, func() { r.kill(patient, pid) })
	defer stopKilling()
	status, err := r.wait(patient, pid)
	if err != nil {
		return nil, err
	}
	if status.Code != 0 {
		return nil, fmt.Errorf("%s ended with status %d: %w", name, status.Code, errdefs.ErrInternal)
	}
	_, err = out.ReadAt(result, 0)
	return result, err
}

// askPatience bounds how long a program may count.
const askPatience = 2 * time.Second

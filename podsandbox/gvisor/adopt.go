package gvisor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// adoptPatience is how long an adoption waits for an answer. A sandbox that is
// merely slow is adopted all the same: the process is known to be the right one,
// and to lose it would be worse than a call that fails later.
const adoptPatience = 2 * time.Second

// Adopt implements engine.Engine. The process must be the one that was saved, run a
// program that this engine or an earlier one staged, and be the one that listens on
// the sandbox's socket. None of it depends on what the process says of itself, which
// is why nothing that it answers is proof that it is lost, either.
func (e *Engine) Adopt(ctx context.Context, cfg engine.Config, p engine.Process) (engine.Sandbox, error) {
	if err := checkMachine(cfg.Machine()); err != nil {
		return nil, err
	}
	s, err := e.adopt(ctx, cfg, p)
	switch {
	case err == nil:
		return e.newSandbox(cfg, s), nil
	case isLost(err):
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errdefs.IsNotFound(err): // said by somebody else, of something else
		return nil, fmt.Errorf("%v: %w", err, errdefs.ErrUnavailable)
	}
	return nil, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
}

// adopt finds the process of a sandbox. After an error it holds nothing of it.
func (e *Engine) adopt(ctx context.Context, cfg engine.Config, p engine.Process) (*sentry, error) {
	root, err := readRootID(cfg)
	if err != nil {
		return nil, err
	}
	proc, err := openProcess(p)
	if err != nil {
		return nil, err
	}
	s := &sentry{dir: cfg.Dir, root: root, proc: proc}
	if err := e.recognize(ctx, s, cfg.ID); err != nil {
		if proc.ended() {
			err = lostf("process %d has ended", p.PID)
		}
		proc.drop()
		s.close()
		return nil, err
	}
	return s, nil
}

// recognize makes sure that a process is the one of a sandbox, and opens what that holds
// for this daemon.
func (e *Engine) recognize(ctx context.Context, s *sentry, id string) error {
	programs, err := e.stagedPrograms()
	if err != nil {
		return err
	}
	if err := s.requireProgram(programs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adoptPatience)
	defer cancel()
	control := newControlPlane(s)
	if err := control.requireListener(ctx); err != nil {
		return err
	}
	if err := control.requireAnswer(ctx); errors.Is(err, context.DeadlineExceeded) {
		e.log.Warn("An adopted sandbox does not answer", "sandbox", id)
	} else if err != nil {
		return err
	}
	if s.panicLog, err = adoptPanicLog(s.proc); err != nil {
		return err
	}
	if s.fdStore, err = adoptFDStore(s.proc); isLost(err) || isShortage(err) {
		return err
	} else if err != nil {
		e.log.Warn("What containers print before they end without a daemon may be lost", "sandbox", id, "err", err)
	}
	// As it has not ended, all that was found by its pid was of this process.
	if err := s.proc.send(0); isGone(err) {
		return lostf("process %d has ended", s.proc.pid)
	}
	return nil
}

// requireProgram makes sure that the process runs one of the programs.
func (s *sentry) requireProgram(programs map[fileID]bool) error {
	dir, err := s.proc.procDir()
	if err != nil {
		return err
	}
	defer dir.close()
	// A process that has none is one of the kernel, or is about to end.
	id, err := dir.executable()
	if err != nil && !isGone(err) {
		return err
	}
	if err != nil || !programs[id] {
		return lostf("process %d runs no program of this engine", s.proc.pid)
	}
	return nil
}

// requireListener makes sure that the process listens on the control socket.
func (c *controlPlane) requireListener(ctx context.Context) error {
	listener, err := c.socket.listener(ctx)
	if err != nil {
		return fmt.Errorf("reach the sandbox: %w", err)
	}
	switch pid := c.sentry.proc.pid; listener {
	case pid:
		return nil
	case 0:
		return errors.New("reach the sandbox: the kernel does not tell who listens on its control socket")
	case -1:
		return lostf("a process that has ended listened on the control socket of the sandbox, and not process %d", pid)
	default:
		return lostf("process %d listens on the control socket of the sandbox, and not process %d", listener, pid)
	}
}

// requireAnswer makes sure that the sandbox answers.
func (c *controlPlane) requireAnswer(ctx context.Context) error {
	var state int
	err := c.socket.call(ctx, methodState, c.sentry.root, &state)
	if isBrokenConnection(err) && c.sentry.diedWithin(ctx, time.Second) {
		return lostf("process %d has ended", c.sentry.proc.pid)
	}
	return err
}

// Learn implements engine.Sandbox.
func (s *Sandbox) Learn(ctx context.Context, c engine.Container) error {
	ctx, cancel := context.WithTimeout(ctx, adoptPatience)
	defer cancel()
	volumes, err := volumesOf(ctx, c)
	if err != nil {
		return err
	}
	s.volumes.table.add(c.ID, volumes)
	return nil
}

// Recover implements engine.Sandbox.
func (s *Sandbox) Recover(ctx context.Context, c engine.Container) (bool, error) {
	started, err := s.started(ctx, c.ID)
	if err != nil || !started {
		return started, err
	}
	return true, s.recoverStart(ctx, c)
}

// recoverStart lets a container begin that still waits for its volumes.
func (s *Sandbox) recoverStart(ctx context.Context, c engine.Container) error {
	volumes, unlock, err := s.volumes.lock(ctx, c)
	if err != nil {
		return err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	waits, err := s.volumes.waitsAtGate(ctx, c.ID)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	if waits {
		if err := s.volumes.finishStart(ctx, c, s.volumes.plan(c, volumes)); err != nil {
			unlock() // the turn of a container comes first
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			return errors.Join(err, s.Destroy(ctx, c.ID))
		}
	}
	s.volumes.table.add(c.ID, volumes)
	return nil
}

// started tells whether a container was ever started. The sandbox starts one at a time
// and answers when it is done with that, so a start whose caller died is not missed.
func (s *Sandbox) started(ctx context.Context, id string) (bool, error) {
	state, err := s.control.state(ctx, id)
	if err != nil {
		return false, err
	}
	switch state {
	case guestStateCreating:
		return false, nil
	case guestStateRunning:
		return true, nil
	}
	// Ended, never known, or failed to start: the first has a status.
	_, err = s.Wait(ctx, id)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return false, nil
	}
	return err == nil, err
}

// Reap implements engine.Engine.
func (e *Engine) Reap(ctx context.Context, id string) error {
	programs, err := e.stagedPrograms()
	if err != nil {
		return err
	}
	crashpoint.Here("before sandbox reap")
	var left []*process
	err = eachProcess(func(d *procDir) error {
		p, err := d.processOf(programs, id)
		if p != nil {
			left = append(left, p)
		}
		return err
	})
	for _, p := range left {
		if kerr := p.signal(unix.SIGKILL); kerr != nil {
			err = errors.Join(err, fmt.Errorf("kill process %d: %w", p.pid, kerr))
		}
	}
	for _, p := range left {
		select {
		case <-p.done:
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", p.pid, ctx.Err())
		}
	}
	if err != nil {
		return err
	}
	crashpoint.Here("after sandbox reap")
	return nil
}

// processOf returns the process if it is one of a sandbox, else nil.
func (d *procDir) processOf(programs map[fileID]bool, sandbox string) (*process, error) {
	belongs, err := d.belongsTo(programs, sandbox)
	if err != nil || !belongs {
		return nil, err
	}
	start, err := d.start()
	if err != nil {
		return nil, err
	}
	return openProcess(engine.Process{PID: d.pid, StartTime: start})
}

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
// the sandbox's socket. None of it depends on what the process says of itself.
func (e *Engine) Adopt(ctx context.Context, cfg engine.Config, p engine.Process) (engine.Sandbox, error) {
	if err := checkMachine(cfg.Machine()); err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", cfg.ID, err)
	}
	s := e.newSandbox(cfg)
	var err error
	if s.root, err = readRootID(cfg); err != nil {
		return nil, err
	}
	if s.proc, err = openProcess(p); err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", cfg.ID, err)
	}
	programs, err := e.stagedPrograms()
	if err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", cfg.ID, err)
	}
	if id, err := executableOf(p.PID); err != nil || !programs[id] {
		return nil, fmt.Errorf("adopt sandbox %s: process %d runs no program of this engine: %w", cfg.ID, p.PID, errdefs.ErrNotFound)
	}
	if err := s.greet(ctx); errdefs.IsDeadlineExceeded(err) {
		e.log.Warn("An adopted sandbox does not answer", "sandbox", cfg.ID)
	} else if err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", cfg.ID, err)
	}
	if s.panicLog, err = adoptPanicLog(s.proc); err != nil {
		return nil, fmt.Errorf("adopt sandbox %s: %w", cfg.ID, err)
	}
	if s.keeper, err = adoptKeeper(s.proc); err != nil {
		e.log.Warn("Last words of containers that end without a daemon may be lost", "sandbox", cfg.ID, "err", err)
	}
	return s, nil
}

// greet makes sure that the process listens on the control socket, and answers.
func (s *Sandbox) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adoptPatience)
	defer cancel()
	listener, err := s.control.listener(ctx)
	if err != nil {
		return s.explain(err)
	}
	if listener != s.proc.pid {
		return fmt.Errorf("process %d listens on its socket, not process %d: %w", listener, s.proc.pid, errdefs.ErrNotFound)
	}
	var state int
	if err := s.control.call(ctx, methodState, s.root, &state); err != nil {
		return s.explain(err)
	}
	return nil
}

// Learn implements engine.Sandbox.
func (s *Sandbox) Learn(ctx context.Context, c engine.Container) error {
	ctx, cancel := context.WithTimeout(ctx, adoptPatience)
	defer cancel()
	volumes, err := volumesOf(ctx, c)
	if err != nil {
		return fmt.Errorf("learn of the volumes of container %s: %w", c.ID, err)
	}
	s.volumes.add(c.ID, volumes)
	return nil
}

// Recover implements engine.Sandbox.
func (s *Sandbox) Recover(ctx context.Context, c engine.Container) (bool, error) {
	started, err := s.started(ctx, c.ID)
	if err != nil || !started {
		return started, err
	}
	if err := s.recoverStart(ctx, c); err != nil {
		return true, fmt.Errorf("bring the start of container %s to an end: %w", c.ID, err)
	}
	return true, nil
}

// recoverStart lets a container begin that still waits for its volumes.
func (s *Sandbox) recoverStart(ctx context.Context, c engine.Container) error {
	volumes, leave, err := s.enterSharing(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	waits, err := s.waitsAtGate(ctx, c.ID)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	if waits {
		if err := s.finishStart(ctx, c, s.planSharing(c, volumes)); err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			return errors.Join(err, s.Destroy(ctx, c.ID))
		}
	}
	s.volumes.add(c.ID, volumes)
	return nil
}

// started tells whether a container was ever started. The sandbox starts one at a time
// and answers when it is done with that, so a start whose caller died is not missed.
func (s *Sandbox) started(ctx context.Context, id string) (bool, error) {
	var state int
	if err := s.control.call(ctx, methodState, id, &state); err != nil {
		return false, fmt.Errorf("get state of container %s: %w", id, s.explain(err))
	}
	switch state {
	case guestStateCreating:
		return false, nil
	case guestStateRunning:
		return true, nil
	}
	// Ended, never known, or failed to start: the first has a status.
	_, err := s.Wait(ctx, id)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return false, nil
	}
	return err == nil, err
}

// Reap implements engine.Engine.
func (e *Engine) Reap(ctx context.Context, id string) error {
	programs, err := e.stagedPrograms()
	if err != nil {
		return fmt.Errorf("reap sandbox %s: %w", id, err)
	}
	crashpoint.Here("before sandbox reap")
	var left []*process
	err = eachProcess(func(pid int) {
		start, err := startTime(pid)
		if err != nil {
			return
		}
		if !belongsTo(pid, programs, id) {
			return
		}
		// The start time was read before the process was looked at: if it still
		// holds, the pidfd is of the process that was looked at.
		p, err := openProcess(engine.Process{PID: pid, StartTime: start})
		if err != nil {
			return
		}
		left = append(left, p)
	})
	for _, p := range left {
		if kerr := p.signal(unix.SIGKILL); kerr != nil && err == nil {
			err = fmt.Errorf("kill process %s: %w", strconv.Itoa(p.pid), kerr)
		}
	}
	for _, p := range left {
		select {
		case <-p.done:
		case <-ctx.Done():
			return fmt.Errorf("reap sandbox %s: process %d: %w", id, p.pid, ctx.Err())
		}
	}
	if err != nil {
		return fmt.Errorf("reap sandbox %s: %w", id, err)
	}
	crashpoint.Here("after sandbox reap")
	return nil
}

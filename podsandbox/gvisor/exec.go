package gvisor

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Exec implements engine.Sandbox.
func (s *Sandbox) Exec(ctx context.Context, id string, p engine.Exec) (engine.ExitStatus, error) {
	status, err := s.exec(ctx, id, p)
	if err != nil {
		return status, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return status, nil
}

func (s *Sandbox) exec(ctx context.Context, id string, p engine.Exec) (engine.ExitStatus, error) {
	args, err := execArgsOf(id, p)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	var files []*os.File
	for _, f := range p.Stdio {
		if f == nil {
			f = s.engine.null
		}
		files = append(files, f)
	}
	started, err := s.beginExec(ctx, args, files)
	if err != nil {
		return engine.ExitStatus{}, err
	}
	type result struct {
		status engine.ExitStatus
		err    error
	}
	done := make(chan result, 1)
	go func() {
		// Not bounded by ctx: after its end the tree is killed, and that ends this.
		status, err := s.wait(context.WithoutCancel(ctx), methodWaitPID, waitPIDArgs{PID: started.pid, CID: id})
		done <- result{status, err}
	}()
	select {
	case r := <-done:
		return r.status, r.err
	case <-ctx.Done():
	}
	killCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := s.killTree(killCtx, id, started); err != nil {
		return engine.ExitStatus{}, fmt.Errorf("%w; its processes could not be killed: %w", ctx.Err(), err)
	}
	select {
	case r := <-done:
		return r.status, ctx.Err()
	case <-killCtx.Done():
		return engine.ExitStatus{}, ctx.Err()
	}
}

func execArgsOf(id string, p engine.Exec) (*execArgs, error) {
	if p.Process == nil || len(p.Process.Args) == 0 {
		return nil, fmt.Errorf("no command: %w", errdefs.ErrInvalidArgument)
	}
	masks, err := masksOf(p.Process.Capabilities)
	if err != nil {
		return nil, err
	}
	return &execArgs{
		Argv:             p.Process.Args,
		Envv:             p.Process.Env,
		WorkingDirectory: p.Process.Cwd,
		KUID:             p.Process.User.UID,
		KGID:             p.Process.User.GID,
		ExtraKGIDs:       p.Process.User.AdditionalGids,
		NoNewPrivileges:  p.Process.NoNewPrivileges,
		Capabilities:     masks,
		StdioIsPty:       p.Process.Terminal,
		GuestFDs:         []int{0, 1, 2},
		ContainerID:      id,
	}, nil
}

// startedExec names a process twice: by its pid in the container's pid namespace,
// which is how it is waited for, and by its pid in the sandbox's root pid
// namespace, which is how it is killed. root is 0 if it had ended by then.
type startedExec struct {
	pid  int32
	root int32
}

// beginExec starts the process and finds its pid in the root pid namespace. It
// is the newest process of the container that has no parent in the sandbox; only
// a container's first process and exec'd ones have none, and execs of one
// container begin one after the other.
func (s *Sandbox) beginExec(ctx context.Context, args *execArgs, files []*os.File) (startedExec, error) {
	entry := s.container(args.ContainerID)
	entry.execMu.Lock()
	defer entry.execMu.Unlock()
	var e startedExec
	if err := s.control.call(ctx, methodExec, args, &e.pid, files...); err != nil {
		return e, s.explain(err)
	}
	ps, err := s.processes(context.WithoutCancel(ctx), args.ContainerID)
	if err != nil {
		return e, nil // it runs; should it have to be killed, this is asked again
	}
	e.root = newestParentless(ps)
	return e, nil
}

func newestParentless(ps []guestProcess) int32 {
	root := int32(0)
	for _, p := range ps {
		if p.PPID == 0 && p.PID > root {
			root = p.PID
		}
	}
	return root
}

func (s *Sandbox) processes(ctx context.Context, id string) ([]guestProcess, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	var ps []guestProcess
	if err := s.control.call(ctx, methodProcesses, id, &ps); err != nil {
		return nil, s.explain(err)
	}
	return ps, nil
}

// killTree kills an exec'd process and all that descends from it. It first stops
// what it finds until it finds nothing new: a process that forks while others are
// being killed would leave children that belong to nobody.
//
// It works by process groups, whose numbers mean the root pid namespace; single
// pids could be taken for those of another exec of a container with its own
// namespace. A group never reaches beyond the tree, as an exec'd process leads a
// session of its own.
func (s *Sandbox) killTree(ctx context.Context, id string, e startedExec) error {
	var groups []int32
	for range 10 {
		ps, err := s.processes(ctx, id)
		if err != nil {
			return err
		}
		fresh := newGroups(ps, e.root, groups)
		if len(fresh) == 0 {
			break
		}
		for _, g := range fresh {
			_ = s.signalGroup(ctx, id, g, unix.SIGSTOP) // it may have ended
		}
		groups = append(groups, fresh...)
	}
	for _, g := range groups {
		_ = s.signalGroup(ctx, id, g, unix.SIGKILL)
	}
	if len(groups) == 0 {
		return s.killExec(ctx, id, e)
	}
	return nil
}

// newGroups lists the process groups of a tree that are not known yet.
func newGroups(ps []guestProcess, root int32, known []int32) []int32 {
	inTree := map[int32]bool{root: true}
	// Parents may have higher pids than their children after a wrap.
	for range ps {
		size := len(inTree)
		for _, p := range ps {
			if inTree[p.PPID] || slices.Contains(known, p.PGID) {
				inTree[p.PID] = true
			}
		}
		if len(inTree) == size {
			break
		}
	}
	var fresh []int32
	for _, p := range ps {
		if inTree[p.PID] && p.PGID != 0 && !slices.Contains(known, p.PGID) && !slices.Contains(fresh, p.PGID) {
			fresh = append(fresh, p.PGID)
		}
	}
	return fresh
}

func (s *Sandbox) signalGroup(ctx context.Context, id string, group int32, sig unix.Signal) error {
	arg := signalArgs{CID: id, Signo: int32(sig), PID: group, Mode: signalGroup}
	return s.explain(s.control.call(ctx, methodSignal, arg, nil))
}

// killExec kills the exec'd process alone, by the name that the sandbox gave it.
func (s *Sandbox) killExec(ctx context.Context, id string, e startedExec) error {
	arg := signalArgs{CID: id, Signo: int32(unix.SIGKILL), PID: e.pid, Mode: signalProcess}
	err := s.explain(s.control.call(ctx, methodSignal, arg, nil))
	if err != nil && (errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err)) {
		return nil
	}
	return err
}

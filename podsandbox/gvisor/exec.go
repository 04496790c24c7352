package gvisor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// guestProcesses starts commands in the containers of one sandbox, and ends what runs in
// them (killtree.go, killall.go). It owns what containers know of their execs
// (container.parentless), under a slot of each container.
type guestProcesses struct {
	control    *controlPlane
	containers *containers
	null       *os.File
	log        *slog.Logger
}

// Exec implements engine.Sandbox.
func (s *Sandbox) Exec(ctx context.Context, id string, p engine.Exec) (engine.ExitStatus, error) {
	return s.processes.exec(ctx, id, p)
}

// exec runs a command to its end, and kills it when ctx ends before.
func (g *guestProcesses) exec(ctx context.Context, id string, p engine.Exec) (engine.ExitStatus, error) {
	cmd, err := g.newCommand(ctx, id, p)
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
		status, err := cmd.Wait(context.WithoutCancel(ctx))
		done <- result{status, err}
	}()
	select {
	case r := <-done:
		return r.status, r.err
	case <-ctx.Done():
	}
	// The tree is killed before the return, but a sandbox that does not answer is
	// not waited for: the killing goes on beside it, for when it answers again.
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		g.killUnawaited(ctx, id, cmd.started)
	}()
	patience := time.NewTimer(killPatience)
	defer patience.Stop()
	select {
	case <-killed:
	case <-patience.C:
		return engine.ExitStatus{}, ctx.Err()
	}
	select {
	case r := <-done:
		return r.status, ctx.Err()
	case <-patience.C:
		return engine.ExitStatus{}, ctx.Err()
	}
}

// killPatience is how long the killing of an exec may keep its caller.
const killPatience = 2 * time.Second

// killUnawaited kills what nobody waits for any more.
func (g *guestProcesses) killUnawaited(ctx context.Context, id string, e *startedExec) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := g.killTree(ctx, id, e); err != nil && !g.control.sentry.proc.ended() {
		g.log.Warn("A command could not be killed", "container", id, "error", err)
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
// namespace, which is how it is killed.
type startedExec struct {
	pid int32

	found chan struct{} // closed when root is known
	root  int32         // 0 if it had ended by then; see rootPID
}

// rootPID waits until root is known, and is 0 when ctx ends before.
func (e *startedExec) rootPID(ctx context.Context) int32 {
	select {
	case <-e.found:
		return e.root
	case <-ctx.Done():
		return 0
	}
}

// startExec begins an exec and waits for that as long as ctx allows. If ctx ends
// before the sandbox has answered, what it then may have started is killed when it
// answers: the caller has no name for it.
func (g *guestProcesses) startExec(ctx context.Context, args *execArgs, files []*os.File) (*startedExec, error) {
	// The caller may close its files when this returns, which is before they are sent
	// if ctx ends.
	fds, err := copyFDs(files)
	if err != nil {
		return nil, err
	}
	entry := g.containers.get(args.ContainerID)
	if err := entry.execs.lock(ctx); err != nil {
		fds.close()
		return nil, err
	}
	type result struct {
		started *startedExec
		err     error
	}
	begun := make(chan result, 1)
	go func() {
		defer entry.execs.unlock()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		e, before, err := g.beginExec(own, entry, args, fds)
		fds.close()
		begun <- result{e, err}
		if err == nil { // its caller waits for its end meanwhile
			g.findRoot(own, entry, e, before)
		}
	}()
	select {
	case r := <-begun:
		if errdefs.IsNotFound(r.err) {
			g.containers.removeUnknown(entry)
		}
		return r.started, r.err
	case <-ctx.Done():
	}
	go func() {
		if r := <-begun; r.err == nil {
			g.killUnawaited(ctx, args.ContainerID, r.started)
		}
	}()
	return nil, ctx.Err()
}

// beginExec starts the process, and tells which ones findRoot shall not take for
// it. The caller holds the container's slot.
func (g *guestProcesses) beginExec(ctx context.Context, entry *container, args *execArgs, fds fdCopies) (_ *startedExec, before map[int32]bool, _ error) {
	before = entry.parentless
	entry.parentless = nil // what is known is not known any more if this fails
	if before == nil {
		ps, err := g.control.processes(ctx, args.ContainerID)
		if err != nil {
			return nil, nil, err
		}
		before = parentless(ps)
	}
	e := &startedExec{found: make(chan struct{})}
	if err := g.control.callWith(ctx, methodExec, args, &e.pid, fds); err != nil {
		return nil, nil, err
	}
	return e, before, nil
}

// findRoot finds an exec'd process in the root pid namespace: it is the one without
// a parent in the sandbox that was not there before. Only a container's first
// process and exec'd ones have no parent, and execs of one container begin one
// after the other: the caller still holds the slot.
func (g *guestProcesses) findRoot(ctx context.Context, entry *container, e *startedExec, before map[int32]bool) {
	defer close(e.found)
	ps, err := g.control.processes(ctx, entry.id)
	if err != nil {
		return // should it have to be killed, it is killed alone
	}
	entry.parentless = parentless(ps)
	for pid := range entry.parentless {
		if !before[pid] {
			e.root = pid
		}
	}
}

// parentless are the pids of the processes that no process of the sandbox has
// made.
func parentless(ps []guestProcess) map[int32]bool {
	pids := map[int32]bool{}
	for _, p := range ps {
		if p.PPID == 0 {
			pids[p.PID] = true
		}
	}
	return pids
}

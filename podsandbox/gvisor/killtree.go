package gvisor

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// killTree kills an exec'd process and all that descends from it. It first stops
// what it finds until it finds nothing new: a process that forks while others are
// being killed would leave children that belong to nobody.
//
// It works by process groups, whose numbers mean the root pid namespace; single
// pids could be taken for those of another exec of a container with its own
// namespace. A group never reaches beyond the tree, as an exec'd process leads a
// session of its own.
func (s *Sandbox) killTree(ctx context.Context, id string, e *startedExec) error {
	root := e.rootPID(ctx)
	if root == 0 {
		return s.killExec(ctx, id, e)
	}
	var groups []int32
	var err error
	for range 10 {
		var ps []guestProcess
		if ps, err = s.processes(ctx, id); err != nil {
			break // what is known is killed none the less: it must not stay stopped
		}
		fresh := newGroups(ps, root, groups)
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
	if err != nil {
		return errors.Join(err, s.killExec(ctx, id, e))
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
func (s *Sandbox) killExec(ctx context.Context, id string, e *startedExec) error {
	arg := signalArgs{CID: id, Signo: int32(unix.SIGKILL), PID: e.pid, Mode: signalProcess}
	err := s.explain(s.control.call(ctx, methodSignal, arg, nil))
	if err != nil && (errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err)) {
		return nil
	}
	return err
}

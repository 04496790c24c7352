package gvisor

import (
	"context"
	"errors"

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
//
// What the sandbox says of its processes may be made up, by one that has been taken
// over. It costs time in proportion to its length, and at most maxGroups signals of
// each kind, and it ends with the context.
func (g *guestProcesses) killTree(ctx context.Context, id string, e *startedExec) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	root := e.rootPID(ctx)
	if root == 0 {
		return g.killExec(ctx, id, e)
	}
	known := map[int32]bool{}
	var groups []int32
	var err error
	for range 10 {
		var ps []guestProcess
		if ps, err = g.control.processes(ctx, id); err != nil {
			break // what is known is killed none the less: it must not stay stopped
		}
		fresh := newGroups(ps, root, known)
		fresh = fresh[:min(len(fresh), maxGroups-len(groups))]
		if len(fresh) == 0 {
			break
		}
		groups = append(groups, fresh...)
		for _, group := range fresh {
			known[group] = true
			_ = g.control.signalGroup(ctx, id, group, unix.SIGSTOP) // it may have ended
			if ctx.Err() != nil {
				break
			}
		}
	}
	if ctx.Err() != nil {
		// Killing what is stopped goes on beside the caller, for as long as a call
		// may take.
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			g.killGroups(ctx, id, groups)
			_ = g.killExec(ctx, id, e)
		}()
		return ctx.Err()
	}
	g.killGroups(ctx, id, groups)
	if err != nil {
		return errors.Join(err, g.killExec(ctx, id, e))
	}
	return ctx.Err()
}

// maxGroups is how many process groups of one tree are killed. A shell with job
// control has one for each of its jobs.
const maxGroups = 1024

func (g *guestProcesses) killGroups(ctx context.Context, id string, groups []int32) {
	for _, group := range groups {
		if ctx.Err() != nil {
			return
		}
		_ = g.control.signalGroup(ctx, id, group, unix.SIGKILL)
	}
}

// newGroups lists the process groups of a tree that are not known yet: those of its
// root, of what descends from that, and of what descends from a member of a known
// group.
func newGroups(ps []guestProcess, root int32, known map[int32]bool) []int32 {
	children := map[int32][]guestProcess{}
	var next []guestProcess // in the tree, with children that were not looked at
	for _, p := range ps {
		children[p.PPID] = append(children[p.PPID], p)
		if p.PID == root || known[p.PGID] {
			next = append(next, p)
		}
	}
	next = append(next, children[root]...) // also of a root that is not listed any more
	inTree, listed := map[int32]bool{}, map[int32]bool{}
	var fresh []int32
	for len(next) > 0 {
		p := next[len(next)-1]
		next = next[:len(next)-1]
		if inTree[p.PID] {
			continue
		}
		inTree[p.PID] = true
		next = append(next, children[p.PID]...)
		if p.PGID > 0 && !known[p.PGID] && !listed[p.PGID] {
			listed[p.PGID] = true
			fresh = append(fresh, p.PGID)
		}
	}
	return fresh
}

// killExec kills the exec'd process alone, by the name that the sandbox gave it.
func (g *guestProcesses) killExec(ctx context.Context, id string, e *startedExec) error {
	arg := signalArgs{CID: id, Signo: int32(unix.SIGKILL), PID: e.pid, Mode: signalProcess}
	err := g.control.signal(ctx, arg)
	if err != nil && (errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err)) {
		return nil
	}
	return err
}

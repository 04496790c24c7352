package gvisor

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// The sandbox has a call that signals all processes of a container, and one that
// destroys it. Both first stop all tasks of the sandbox, those of other containers, too,
// and wait until each has stopped. A task that waits for the host does not: it may open
// a file of a network that is away, or one with a lease. Then the whole pod stands still
// for as long, and no control call is answered. So processes are killed group by group,
// and a container is destroyed when it has none.
//
// The sandbox does the same by itself when the gofer of a container has hung up that it
// still knows, as at its end. So it stands still, too, when another container of a pod
// ends in which one waits for the host; nothing of that is ours.

// maxListings is how often it is looked for more processes to kill: who forks faster
// than that keeps nobody waiting.
const maxListings = 10

// killAll sends SIGKILL to all processes of a container. It names them by their groups,
// as killTree does.
func (g *guestProcesses) killAll(ctx context.Context, id string) error {
	// With its first process end all of a pid namespace of its own.
	first := g.control.signal(ctx, signalArgs{CID: id, Signo: int32(unix.SIGKILL), Mode: signalProcess})
	if first != nil && !errdefs.IsNotFound(first) {
		return first
	}
	killed := map[int32]bool{}
	for range maxListings {
		ps, err := g.control.processes(ctx, id)
		if err != nil {
			return err
		}
		if len(ps) == 0 && len(killed) == 0 {
			return first
		}
		fresh := processGroups(ps, killed)
		if len(fresh) == 0 {
			return nil
		}
		if len(killed)+len(fresh) > maxGroups {
			break
		}
		for _, group := range fresh {
			killed[group] = true
			// One that has ended meanwhile is told in too many ways.
			if err := g.control.signalGroup(ctx, id, group, unix.SIGKILL); ctx.Err() != nil || errdefs.IsUnavailable(err) {
				return err
			}
		}
	}
	return g.control.signal(ctx, signalArgs{CID: id, Signo: int32(unix.SIGKILL), Mode: signalAll})
}

// processGroups are the process groups that are not among the known.
func processGroups(ps []guestProcess, known map[int32]bool) []int32 {
	var groups []int32
	for _, p := range ps {
		if p.PGID > 0 && !known[p.PGID] && !slices.Contains(groups, p.PGID) {
			groups = append(groups, p.PGID)
		}
	}
	return groups
}

// settlePatience is how long a container's processes may take to end, once killed, when
// it is to be destroyed. They take milliseconds, and more where the pod has little of a
// processor.
const settlePatience = 10 * time.Second

// settle kills what a container still runs, and returns when nothing of it is left that
// its destruction would wait for. The error is DeadlineExceeded when something is.
func (g *guestProcesses) settle(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	held := 0
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		left, err := g.living(ctx, id)
		if err == nil && len(left) == 0 {
			return nil
		}
		if err == nil {
			held = len(left)
			err = ignoreNotFound(g.killAll(ctx, id))
		}
		if over := errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil; err != nil && (!over || held == 0) {
			return err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			pause = settlePatience // until ctx ends, any moment
		}
		select {
		case <-time.After(pause):
		case <-g.control.sentry.proc.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d of its processes do not end, as in a call to a file system of the host that does not answer: %w",
				held, context.DeadlineExceeded)
		}
	}
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// living are the processes of a container that have not ended. One that has, and whose
// parent does not ask for it, is listed for good, but nothing waits for it.
func (g *guestProcesses) living(ctx context.Context, id string) ([]guestProcess, error) {
	ps, err := g.control.processes(ctx, id)
	if err != nil {
		return nil, err
	}
	const mostAsked = 16 // all others count as living
	asked := 0
	return slices.DeleteFunc(ps, func(p guestProcess) bool {
		if asked++; p.PPID == 0 || asked > mostAsked {
			return false
		}
		stat, err := g.control.readFile(ctx, path.Join("/proc", strconv.Itoa(int(p.PID)), "stat"))
		if err != nil {
			return isMissing(err)
		}
		_, state, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(state, "Z")
	}), nil
}

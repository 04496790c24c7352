package gvisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Each container has file systems of its own in the Sentry, also where two of them
// have the same volume: a socket bound in one would be nothing to connect to in the
// other, a lock nothing that holds anybody up, and two that append would write over
// each other. gVisor shares a file system between containers only if it is a tmpfs, or
// one that nobody else changes.
//
// So what a container starts with is decided anew while it waits behind a gate
// (gate.go): it joins the file system of who has the volume already, whose mount is
// copied over its own one; and those who have it for reading alone, each for itself,
// join the one of the container that can write. What cannot be joined is what it was
// before: the same files, without what is known of them in the Sentry's memory alone.

// sharing is what the volumes of a container that starts have to do with those of
// others.
type sharing struct {
	volumes []volume
	joins   []join // of its own volumes, with others
	offers  []join // of others' volumes, with its own
}

func (sh *sharing) isNone() bool { return len(sh.joins)+len(sh.offers) == 0 }

// join is a volume of a container and where it is found in others.
type join struct {
	container string
	volume
	sources []source
	memory  *engine.MemoryVolume // that it is, if it is one
}

// planSharing finds who has what a container is to have.
func (s *Sandbox) planSharing(c engine.Container, volumes []volume) sharing {
	id := c.ID
	sh := sharing{volumes: volumes, joins: s.memoryJoins(c)}
	for _, v := range volumes {
		if sources := s.volumes.sources(id, v); len(sources) > 0 {
			sh.joins = append(sh.joins, join{container: id, volume: v, sources: sources})
		} else if v.writable() {
			sh.offers = append(sh.offers, s.volumes.readers(id, v)...)
		}
	}
	// An outer one before what lies in it.
	slices.SortStableFunc(sh.joins, func(a, b join) int { return len(a.destination) - len(b.destination) })
	return sh
}

// finishStart lets a container that waits behind its gate share its volumes and begin.
func (s *Sandbox) finishStart(ctx context.Context, c engine.Container, sh sharing) error {
	joins := slices.Concat(sh.joins, sh.offers)
	gate, err := s.gateOperations(ctx, c.ID)
	if err != nil {
		return err
	}
	open := false
	for i := 0; i < len(joins); i++ {
		j := joins[i]
		var then []string
		if i == len(joins)-1 {
			then = gate
		}
		origin, err := s.joinInTime(ctx, j, then)
		switch {
		case err == nil:
			open = then != nil
			s.noteJoin(c.ID, sh.volumes, j, origin)
		case j.memory != nil:
			return fmt.Errorf("mount memory volume %s: %w", j.destination, err)
		default:
			if !errors.Is(err, errAllEnded) {
				s.engine.log.Warn("A volume is not shared between containers", "container", j.container, "volume", j.destination, "err", err)
			}
			if j.container == c.ID && j.writable() { // it is the first that can write, then
				joins = append(joins, s.volumes.readers(c.ID, j.volume)...)
			}
		}
	}
	if !open {
		if _, err := s.programs.changeMounts(ctx, gate); err != nil {
			return fmt.Errorf("open the gate: %w", err)
		}
	}
	crashpoint.Here("after gate opens")
	return s.passGate(ctx, c.ID, c.Spec.Process.Args[0])
}

// noteJoin notes whose gofer serves a volume now.
func (s *Sandbox) noteJoin(id string, volumes []volume, j join, origin string) {
	if j.memory != nil {
		return
	}
	s.containers.lend(origin)
	if j.container != id {
		s.volumes.joined(j.container, j.destination, origin)
		return
	}
	for i := range volumes {
		if volumes[i].destination == j.destination {
			volumes[i].origin = origin
		}
	}
}

// joinPatience is how long a container waits for a volume of another one, which may
// have put something that does not answer on the way to it.
const joinPatience = 5 * time.Second

// joinInTime is join for as long as it is worth waiting. A volume in memory has to be
// there.
func (s *Sandbox) joinInTime(ctx context.Context, j join, then []string) (origin string, err error) {
	if j.memory == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, joinPatience)
		defer cancel()
	}
	return s.join(ctx, j, then)
}

// join makes one of the mounts, and what is missing of a volume in memory. Further
// operations are done with it.
func (s *Sandbox) join(ctx context.Context, j join, then []string) (origin string, err error) {
	if j.memory == nil {
		return s.joinAny(ctx, j, then)
	}
	if err := s.makeMemoryVolume(ctx, *j.memory); err != nil {
		return "", err
	}
	if j.memory.Below != "" {
		return "", s.joinPart(ctx, j, then)
	}
	return s.joinAny(ctx, j, then)
}

// errAllEnded says that whoever has a volume has no process any more, as when a container
// is started anew.
var errAllEnded = errors.New("all that have it have ended")

// joinAny copies a mount from the first container where that succeeds. It returns the
// container whose gofer serves it.
func (s *Sandbox) joinAny(ctx context.Context, j join, then []string) (origin string, err error) {
	to, err := s.control.firstProcess(ctx, j.container)
	if err != nil {
		return "", err
	}
	failed := errAllEnded
	for _, from := range j.sources {
		pid, err := s.control.firstProcess(ctx, from.container)
		if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
			continue
		}
		if err == nil {
			if err = s.copyMount(ctx, j, from.path, pid, to, then); err == nil {
				return from.origin, nil
			}
		}
		if errors.Is(failed, errAllEnded) {
			failed = nil
		}
		failed = errors.Join(failed, fmt.Errorf("from container %s: %w", from.container, err))
	}
	return "", failed
}

// copyMount puts a copy of a mount of one process over one of another process. After
// an error that one has what it had.
func (s *Sandbox) copyMount(ctx context.Context, j join, source string, from, to int32, then []string) error {
	ops := []string{"n", pidArg(to)}
	if j.origin != j.container { // what it has joined before, of a container that has ended
		ops = append(ops, "u", j.destination)
	}
	for _, n := range j.nested {
		ops = append(ops, "o", n.destination)
	}
	ops = append(ops, "n", pidArg(from), "o", source, "n", pidArg(to), "m", j.destination)
	moved := len(ops) / 2
	for _, n := range slices.Backward(j.nested) {
		point := "K"
		if n.file {
			point = "F"
		}
		ops = append(ops, point, n.destination, "m", n.destination)
	}
	ops = append(ops, "f", strconv.Itoa(int(unix.MS_REMOUNT|unix.MS_BIND|j.flags)), "r", j.destination)
	failed, err := s.programs.changeMounts(ctx, append(ops, then...))
	if failed > moved {
		if _, uerr := s.programs.changeMounts(ctx, []string{"n", pidArg(to), "u", j.destination}); uerr != nil {
			return fmt.Errorf("%w; and to undo it: %w", err, uerr)
		}
	}
	return err
}

func pidArg(pid int32) string { return strconv.Itoa(int(pid)) }

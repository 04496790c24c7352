package gvisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// sharedVolumes lets the containers of one sandbox share what they have in common. It owns
// the table of their volumes and the volumes in the sandbox's memory. Of the gofers that
// serve a volume for others, containers knows.
type sharedVolumes struct {
	control    *controlPlane
	programs   *rootPrograms
	containers *containers
	log        *slog.Logger

	table volumeTable

	// turn is held while a container with volumes is started: what it has to join
	// is then known, and so is it to those that join it.
	turn   slot
	memory map[string]bool // made already, by name; guarded by turn
}

// lock begins the start of a container that has volumes, of which there is one
// at a time in a sandbox.
func (v *sharedVolumes) lock(ctx context.Context, c engine.Container) (volumes []volume, unlock func(), err error) {
	if volumes, err = volumesOf(ctx, c); err != nil || len(volumes)+len(c.Writes.Memory) == 0 {
		return nil, func() {}, err
	}
	if err := v.turn.lock(ctx); err != nil {
		return nil, nil, fmt.Errorf("wait for the start of another container with volumes: %w", err)
	}
	return volumes, v.turn.unlock, nil
}

// plan finds who has what a container is to have.
func (v *sharedVolumes) plan(c engine.Container, volumes []volume) sharing {
	id := c.ID
	sh := sharing{volumes: volumes, joins: v.memoryJoins(c)}
	for _, own := range volumes {
		if sources := v.table.sources(id, own); len(sources) > 0 {
			sh.joins = append(sh.joins, join{container: id, volume: own, sources: sources})
		} else if own.writable() {
			sh.offers = append(sh.offers, v.table.readers(id, own)...)
		}
	}
	// An outer one before what lies in it.
	slices.SortStableFunc(sh.joins, func(a, b join) int { return len(a.destination) - len(b.destination) })
	return sh
}

// finishStart lets a container that waits behind its gate share its volumes and begin.
func (v *sharedVolumes) finishStart(ctx context.Context, c engine.Container, sh sharing) error {
	joins := slices.Concat(sh.joins, sh.offers)
	gate, err := v.gateOperations(ctx, c.ID)
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
		origin, err := v.joinInTime(ctx, j, then)
		switch {
		case err == nil:
			open = then != nil
			v.noteJoin(c.ID, sh.volumes, j, origin)
		case j.memory != nil:
			return fmt.Errorf("mount memory volume %s: %w", j.destination, err)
		default:
			if !errors.Is(err, errAllEnded) {
				v.log.Warn("A volume is not shared between containers", "container", j.container, "volume", j.destination, "err", err)
			}
			if j.container == c.ID && j.writable() { // it is the first that can write, then
				joins = append(joins, v.table.readers(c.ID, j.volume)...)
			}
		}
	}
	if !open {
		if _, err := v.programs.changeMounts(ctx, gate); err != nil {
			return fmt.Errorf("open the gate: %w", err)
		}
	}
	crashpoint.Here("after gate opens")
	return v.passGate(ctx, c.ID, c.Spec.Process.Args[0])
}

// noteJoin notes whose gofer serves a volume now.
func (v *sharedVolumes) noteJoin(id string, volumes []volume, j join, origin string) {
	if j.memory != nil {
		return
	}
	v.containers.lend(origin)
	if j.container != id {
		v.table.joined(j.container, j.destination, origin)
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
func (v *sharedVolumes) joinInTime(ctx context.Context, j join, then []string) (origin string, err error) {
	if j.memory == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, joinPatience)
		defer cancel()
	}
	return v.join(ctx, j, then)
}

// join makes one of the mounts, and what is missing of a volume in memory. Further
// operations are done with it.
func (v *sharedVolumes) join(ctx context.Context, j join, then []string) (origin string, err error) {
	if j.memory == nil {
		return v.joinAny(ctx, j, then)
	}
	if err := v.makeMemoryVolume(ctx, *j.memory); err != nil {
		return "", err
	}
	if j.memory.Below != "" {
		return "", v.joinPart(ctx, j, then)
	}
	return v.joinAny(ctx, j, then)
}

// errAllEnded says that whoever has a volume has no process any more, as when a container
// is started anew.
var errAllEnded = errors.New("all that have it have ended")

// joinAny copies a mount from the first container where that succeeds. It returns the
// container whose gofer serves it.
func (v *sharedVolumes) joinAny(ctx context.Context, j join, then []string) (origin string, err error) {
	to, err := v.control.firstProcess(ctx, j.container)
	if err != nil {
		return "", err
	}
	failed := errAllEnded
	for _, from := range j.sources {
		pid, err := v.control.firstProcess(ctx, from.container)
		if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
			continue
		}
		if err == nil {
			if err = v.copyMount(ctx, j, from.path, pid, to, then); err == nil {
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
func (v *sharedVolumes) copyMount(ctx context.Context, j join, source string, from, to int32, then []string) error {
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
	failed, err := v.programs.changeMounts(ctx, append(ops, then...))
	if failed > moved {
		if _, uerr := v.programs.changeMounts(ctx, []string{"n", pidArg(to), "u", j.destination}); uerr != nil {
			return fmt.Errorf("%w; and to undo it: %w", err, uerr)
		}
	}
	return err
}

func pidArg(pid int32) string { return strconv.Itoa(int(pid)) }

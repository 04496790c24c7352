package gvisor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// Each container has file systems of its own in the Sentry, also where two of them
// have the same volume: a socket bound in one would be nothing to connect to in the
// other, a lock nothing that holds anybody up, and two that append would write over
// each other. gVisor shares a file system between containers only if it is a tmpfs, or
// one that nobody else changes.
//
// So a container whose volume another one has already joins that one's file system:
// it is started behind a gate (gate.go), the other's mount is copied over its own one,
// and the gate is opened. What cannot be joined is what it was before: the same files
// without what is known of them in the Sentry's memory alone.

// joinable is a volume of a container and where others have it.
type joinable struct {
	volume
	sources []source
	// nested are the container's mounts below it, which have to stay on top.
	nested []string
}

// joinables are what a container has to join.
func (s *Sandbox) joinables(c engine.Container, volumes []volume) []joinable {
	var list []joinable
	for _, v := range volumes {
		if sources := s.volumes.sources(c.ID, v); len(sources) > 0 {
			list = append(list, joinable{volume: v, sources: sources, nested: nestedIn(c, v.destination)})
		}
	}
	// An outer one before what lies in it.
	slices.SortStableFunc(list, func(a, b joinable) int { return len(a.destination) - len(b.destination) })
	return list
}

// nestedIn are the mounts of a container below one of them, inner ones first.
func nestedIn(c engine.Container, destination string) []string {
	mounts, err := translateMounts(c.Spec.Root.Path, c.Spec.Mounts)
	if err != nil {
		return nil
	}
	var nested []string
	for _, m := range mounts {
		if m.Destination != destination && within(m.Destination, destination) && !slices.Contains(nested, m.Destination) {
			nested = append(nested, m.Destination)
		}
	}
	slices.SortStableFunc(nested, func(a, b string) int { return len(b) - len(a) })
	return nested
}

// joinVolumes copies the mounts of others over those of a container that waits behind
// its gate, and opens it. It returns the containers whose gofers serve them.
func (s *Sandbox) joinVolumes(ctx context.Context, id string, list []joinable) (origins map[string]string, err error) {
	waiting, err := s.firstProcess(ctx, id)
	if err != nil {
		return nil, err
	}
	origins = map[string]string{}
	pids := map[string]int32{}
	for _, j := range list {
		for _, from := range j.sources {
			pid, known := pids[from.container]
			if !known {
				if pid, err = s.firstProcess(ctx, from.container); err != nil {
					pid = 0 // it has ended
				}
				pids[from.container] = pid
			}
			if pid == 0 {
				continue
			}
			if err = s.joinVolume(ctx, waiting, pid, from, j); err == nil {
				origins[j.destination] = from.origin
				break
			}
			s.engine.log.Warn("A volume is not shared with another container", "container", id, "volume", j.destination, "with", from.container, "err", err)
		}
	}
	crashpoint.Here("before gate opens")
	open := []string{"n", pidArg(waiting), "u", gateFolder, "d", gateFolder}
	if _, err := s.changeMounts(ctx, open); err != nil {
		return nil, fmt.Errorf("open the gate: %w", err)
	}
	crashpoint.Here("after gate opens")
	return origins, nil
}

// finishStart lets a container that waits behind its gate have its volumes and begin.
func (s *Sandbox) finishStart(ctx context.Context, c engine.Container, volumes []volume, joins []joinable) error {
	origins, err := s.joinVolumes(ctx, c.ID, joins)
	if err != nil {
		return err
	}
	for i, v := range volumes {
		if origin, joined := origins[v.destination]; joined {
			volumes[i].origin = origin
			s.lend(origin)
		}
	}
	return s.passGate(ctx, c.ID, c.Spec.Process.Args[0])
}

// lend notes that the gofer of a container serves another one, too.
func (s *Sandbox) lend(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		c.lent = true
	}
}

// retireGofer leaves the gofer of a container that has ended to those that have joined
// its volumes. It ends by itself when the last of them has. The container's mu is held.
func (s *Sandbox) retireGofer(c *container) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.lent || c.gofer == nil || s.proc.ended() {
		return false
	}
	c.gofer.closeConns()
	s.retired = append(slices.DeleteFunc(s.retired, func(g *gofer) bool { return g.proc.ended() }), c.gofer)
	c.gofer = nil
	return true
}

// addGate puts the gate before a container's program.
func (e *Engine) addGate(args *startArgs, files *startFiles) error {
	spec := *args.Spec
	if err := putGate(&spec); err != nil {
		return err
	}
	gate, err := e.gateFile()
	if err != nil {
		return err
	}
	args.Spec = &spec
	args.GoferMountConfs = append(slices.Clone(args.GoferMountConfs), mountConf{Lower: lowerErofs})
	files.all = append(slices.Clone(files.all), gate)
	files.own = append(slices.Clone(files.own), gate)
	return nil
}

// joinVolume copies one mount. After an error the container has its own one.
func (s *Sandbox) joinVolume(ctx context.Context, waiting, pid int32, from source, j joinable) error {
	ops := []string{"n", pidArg(waiting)}
	for _, n := range j.nested {
		ops = append(ops, "o", n)
	}
	ops = append(ops, "n", pidArg(pid), "o", from.path, "n", pidArg(waiting), "m", j.destination)
	moved := len(ops) / 2
	flags := unix.MS_REMOUNT | unix.MS_BIND | j.flags
	ops = append(ops, "f", strconv.Itoa(int(flags)), "r", j.destination)
	for _, n := range slices.Backward(j.nested) {
		ops = append(ops, "m", n)
	}
	failed, err := s.changeMounts(ctx, ops)
	if err == nil {
		return nil
	}
	if failed > moved {
		if _, uerr := s.changeMounts(ctx, []string{"n", pidArg(waiting), "u", j.destination}); uerr != nil {
			return fmt.Errorf("%w; and to undo it: %w", err, uerr)
		}
	}
	return err
}

func pidArg(pid int32) string { return strconv.Itoa(int(pid)) }

// maxMountOperations is how many the program takes: it tells by its exit code which of
// them has failed.
const maxMountOperations = 250

// changeMounts runs the program that changes mounts, in the root container. It returns
// the number of the operation that failed, counted from 1.
func (s *Sandbox) changeMounts(ctx context.Context, ops []string) (failed int, err error) {
	if len(ops)/2 > maxMountOperations {
		return 0, fmt.Errorf("%d changes of mounts at once, at most %d: %w", len(ops)/2, maxMountOperations, errdefs.ErrInvalidArgument)
	}
	program, err := memoryFile("mounts", guest.Mounts())
	if err != nil {
		return 0, err
	}
	defer program.Close()
	args, err := execArgsOf(s.cfg.ID, engine.Exec{Process: &specs.Process{
		Args: append([]string{"mounts"}, ops...), Cwd: "/", NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{
			Effective: mountCapabilities, Permitted: mountCapabilities, Bounding: mountCapabilities,
		},
	}})
	if err != nil {
		return 0, err
	}
	var pid int32
	null := s.engine.null
	if err := s.control.call(ctx, methodExec, args, &pid, null, null, null, program); err != nil {
		return 0, s.explain(err)
	}
	status, err := s.wait(ctx, methodWaitPID, waitPIDArgs{PID: pid, CID: s.cfg.ID})
	if err != nil {
		return 0, err
	}
	if status.Code != 0 {
		n := min(status.Code, len(ops)/2)
		return n, fmt.Errorf("operation %s %s: failed in the sandbox: %w", ops[2*n-2], ops[2*n-1], errdefs.ErrInternal)
	}
	return 0, nil
}

// mountCapabilities hold within the sandbox only.
var mountCapabilities = []string{"CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE"}

// firstProcess is the pid of the first process of a container, in the root pid
// namespace.
func (s *Sandbox) firstProcess(ctx context.Context, id string) (int32, error) {
	ps, err := s.processes(ctx, id)
	if err != nil {
		return 0, err
	}
	if len(ps) == 0 {
		return 0, fmt.Errorf("container %s has no process: %w", id, errdefs.ErrFailedPrecondition)
	}
	return ps[0].PID, nil
}

// gateFile returns the file system of the gate as another open file.
func (e *Engine) gateFile() (*os.File, error) {
	e.gateOnce.Do(func() {
		var image []byte
		if image, e.gateErr = guest.GateImage(); e.gateErr == nil {
			e.gate, e.gateErr = memoryFile("gate", image)
		}
	})
	if e.gateErr != nil {
		return nil, e.gateErr
	}
	return reopen(e.gate)
}

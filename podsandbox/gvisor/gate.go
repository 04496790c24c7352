package gvisor

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// gateDir is where a container that waits for its mounts has the program that
// waits. It is gone before the container's own program begins.
const (
	gateDir  = "/dev/.sandbox-gate"
	gateName = guest.GateName
)

// putGate lets a container begin with the gate. The order of the arguments is that of
// guest.Gate.
func putGate(spec *specs.Spec) error {
	process := *spec.Process
	candidates, err := programPaths(&process)
	if err != nil {
		return err
	}
	args := append([]string{path.Join(gateDir, gateName), path.Join(gateDir, "closed")}, candidates...)
	process.Args = append(append(args, ""), process.Args...)
	spec.Process = &process
	spec.Mounts = append(spec.Mounts[:len(spec.Mounts):len(spec.Mounts)], specs.Mount{
		Destination: gateDir, Type: imageMountType, Source: "/gate", Options: []string{"ro", "nosuid", "nodev"},
	})
	return nil
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

// gateOperations take away what a container waits at; see guest.Mounts.
func (v *sharedVolumes) gateOperations(ctx context.Context, id string) ([]string, error) {
	crashpoint.Here("before gate opens")
	pid, err := v.control.firstProcess(ctx, id)
	if err != nil {
		return nil, err
	}
	return []string{"n", pidArg(pid), "u", gateDir, "d", gateDir}, nil
}

// programPaths are the paths that a container's program is looked for at, as gVisor
// does it; environ(7).
func programPaths(p *specs.Process) ([]string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, fmt.Errorf("no program to run: %w", errdefs.ErrInvalidArgument)
	}
	name := p.Args[0]
	if strings.Contains(name, "/") {
		if path.IsAbs(name) {
			return []string{name}, nil
		}
		return []string{path.Join("/", p.Cwd, name)}, nil
	}
	var paths []string
	for _, e := range p.Env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			paths = nil // the last one counts
			for _, dir := range strings.Split(list, ":") {
				if path.IsAbs(dir) {
					paths = append(paths, path.Join(dir, name))
				}
			}
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("find program %q: PATH names no directory: %w", name, errdefs.ErrInvalidArgument)
	}
	return paths, nil
}

// passGate waits until a container's own program has taken the place of the gate, which
// is open.
func (v *sharedVolumes) passGate(ctx context.Context, id, program string) error {
	const pause = 500 * time.Microsecond
	for {
		ps, err := v.control.commands(ctx, id)
		if err != nil || len(ps) == 0 {
			return v.gateFailure(ctx, id, program)
		}
		if ps[0].Cmd != gateName {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("start program %q: %w", program, ctx.Err())
		}
	}
}

// gateFailure tells why the gate has ended. A program that has begun, and ended
// already, is no failure.
func (v *sharedVolumes) gateFailure(ctx context.Context, id, program string) error {
	status, err := v.control.wait(ctx, methodWait, id)
	if err != nil {
		return err
	}
	switch status.Signal {
	case guest.GateMissing:
		return fmt.Errorf("start program %q: %w: %w", program, unix.ENOENT, errdefs.ErrInvalidArgument)
	case guest.GateDenied:
		return fmt.Errorf("start program %q: %w: %w", program, unix.EACCES, errdefs.ErrInvalidArgument)
	case guest.GateBroken:
		return fmt.Errorf("start program %q: %w: %w", program, unix.ENOEXEC, errdefs.ErrInvalidArgument)
	}
	return nil
}

// waitsAtGate tells whether a container was started and its program has not begun.
func (v *sharedVolumes) waitsAtGate(ctx context.Context, id string) (bool, error) {
	ps, err := v.control.commands(ctx, id)
	if err != nil || len(ps) == 0 {
		return false, err
	}
	return ps[0].Cmd == gateName, nil
}

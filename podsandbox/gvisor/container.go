package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// cleanupTimeout bounds the undoing of a failed step, which goes on when the
// caller's context has ended.
const cleanupTimeout = 10 * time.Second

// Create implements engine.Sandbox. The container's place in the sandbox itself
// is taken at Start, because the terminal travels with it.
func (s *Sandbox) Create(ctx context.Context, c engine.Container) error {
	entry := s.containers.get(c.ID)
	if err := entry.lock(ctx); err != nil {
		return err
	}
	defer entry.turn.unlock()
	if entry.gofer != nil {
		return fmt.Errorf("it was created before: %w", errdefs.ErrAlreadyExists)
	}
	if err := s.prepare(ctx, entry, c); err != nil {
		s.containers.remove(entry)
		return err
	}
	return nil
}

// prepare translates the spec and starts the gofer. The entry's turn is held.
func (s *Sandbox) prepare(ctx context.Context, entry *container, c engine.Container) error {
	if err := s.sentry.requireAlive(); err != nil {
		return err
	}
	p, err := s.translator.prepareSpec(ctx, c)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.checkFiles(); err != nil {
		return err
	}
	entry.gofer, err = s.gofers.spawn(c.ID, p)
	return err
}

// checkFiles refuses a container whose start could not be asked for in one message. Each
// file system from outside of the sandbox takes a descriptor: its root, what it asks
// for, and what covers the paths that it is not to see or to write to.
func (p *preparedSpec) checkFiles() error {
	if n := p.messageFiles(); n > maxMessageFiles {
		return fmt.Errorf("it has %d mounts of volumes, host paths and images, and a sandbox can be given %d for one container; "+
			"mount whole volumes instead of many parts of them: %w", p.asked, maxMessageFiles-(n-p.asked), errdefs.ErrInvalidArgument)
	}
	return nil
}

// messageFiles is how many descriptors the start of the container will take.
func (p *preparedSpec) messageFiles() int {
	n := 1 + len(p.withFile()) // the root
	for _, m := range p.spec.Mounts {
		if fromOutside(m) {
			n++
		}
	}
	if !p.spec.Process.Terminal {
		n += 3
	}
	if _, ok := p.layers["/"]; ok {
		n++ // the seed
	}
	if p.gated {
		n++
	}
	return n
}

// Start implements engine.Sandbox.
func (s *Sandbox) Start(ctx context.Context, c engine.Container) error {
	stdio, err := stdioOf(c)
	if err != nil {
		return err
	}
	entry := s.containers.get(c.ID)
	if err := entry.lock(ctx); err != nil {
		return err
	}
	defer entry.turn.unlock()
	if entry.gofer == nil { // created by an earlier daemon, whose gofer went with it
		if err := s.prepare(ctx, entry, c); err != nil {
			s.containers.remove(entry)
			return err
		}
	}
	g := entry.gofer
	if g.conns == nil {
		return fmt.Errorf("it was started before: %w", errdefs.ErrFailedPrecondition)
	}
	started, unlockOwner := false, func(bool) {}
	defer func() { unlockOwner(started) }() // after the rest is undone
	cu := cleanup.Make(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		// Readers may have joined it before its program failed.
		_ = s.containers.stopGofer(ctx, entry, s.sentry.proc.ended())
		s.containers.remove(entry)
	})
	defer cu.Clean()
	if unlockOwner, err = s.pidNamespaces.join(ctx, c); err != nil {
		return err
	}

	crashpoint.Here("before container place")
	if err := s.control.takePlace(ctx, c.ID, ttyOf(c, stdio)); err != nil {
		return err
	}
	crashpoint.Here("after container place")
	cu.Add(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = s.control.destroy(ctx, c.ID)
	})
	if err := s.awaitReady(ctx, c, g); err != nil {
		return err
	}
	crashpoint.Here("after container limits")
	if err := s.run(ctx, c, g, stdio); err != nil {
		return err
	}
	started = true
	cu.Release()
	g.closeConns()
	return nil
}

// awaitReady waits for the gofer, and sets what the container is to see of its limits
// meanwhile. With a container's place its cgroup goes, too, so it is made when that was
// taken, and waited for before that is given back.
func (s *Sandbox) awaitReady(ctx context.Context, c engine.Container, g *gofer) error {
	limited := make(chan error, 1)
	go func() { limited <- s.programs.makeCgroup(ctx, c) }()
	err := g.await(ctx)
	if lerr := <-limited; err == nil {
		err = lerr
	}
	return err
}

// run starts a container that has its place in the sandbox, with the volumes that it
// shares with others.
func (s *Sandbox) run(ctx context.Context, c engine.Container, g *gofer, stdio []*os.File) error {
	volumes, unlock, err := s.volumes.lock(ctx, c)
	if err != nil {
		return err
	}
	defer unlock()
	share := s.volumes.plan(c, volumes)
	args, files, err := g.startArgs(c, stdio)
	if err != nil {
		return err
	}
	defer func() { closeAll(files.own) }()
	if len(files.all) >= maxMessageFiles && !g.prepared.gated { // no room for the gate
		share = sharing{volumes: volumes}
	}
	if !share.isNone() {
		if err := s.engine.addGate(&args, &files); err != nil {
			return err
		}
	}
	g.follow(s.sentry.proc)
	if err := s.hold(c); err != nil {
		s.engine.log.Warn("Keep the streams of a container", "container", c.ID, "err", err)
	}
	crashpoint.Here("before container start")
	if err := s.control.socket.call(ctx, methodStart, args, nil, files.all...); err != nil {
		return s.pidNamespaces.explainStart(c, err)
	}
	crashpoint.Here("after container start")
	if !share.isNone() {
		if err := s.volumes.finishStart(ctx, c, share); err != nil {
			return err
		}
	}
	s.volumes.table.add(c.ID, volumes)
	return nil
}

// startFiles are what travels with the start of a container.
type startFiles struct {
	all []*os.File
	own []*os.File // those that were opened for it
}

// startArgs is the request that starts a container whose gofer serves. The order of
// the files is gVisor's: stdio, layers, seed, connections to the gofer.
func (g *gofer) startArgs(c engine.Container, stdio []*os.File) (startArgs, startFiles, error) {
	p := g.prepared
	spec := *p.spec
	root := *spec.Root
	spec.Mounts, spec.Root, root.Path = g.mounts, &root, "/" // not the host's to know
	args := startArgs{Spec: &spec, Conf: p.settings.ofContainer(p), CID: c.ID, GoferMountConfs: p.confs}
	var files startFiles
	cu := cleanup.Make(func() { closeAll(files.own) })
	defer cu.Clean()
	layers, err := p.openLayers()
	files.own = append(files.own, layers...)
	if err != nil {
		return args, files, err
	}
	args.NumGoferFilestoreFDs = len(layers)
	seed, err := p.seedFile()
	if err != nil {
		return args, files, err
	}
	if seed != nil {
		files.own = append(files.own, seed)
		args.IsRootfsUpperTarFilePresent = true
	}
	if !c.Spec.Process.Terminal {
		files.all = append(files.all, stdio...)
	}
	files.all = append(append(files.all, files.own...), g.conns...)
	cu.Release()
	return args, files, nil
}

// hasCapability tells whether a process has a capability, or can come to have it.
func hasCapability(p *specs.Process, name string) bool {
	if p == nil || p.Capabilities == nil {
		return false
	}
	c := p.Capabilities
	for _, set := range [][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		if slices.Contains(set, name) {
			return true
		}
	}
	return false
}

// stdioOf returns the descriptors that a container is born with.
func stdioOf(c engine.Container) ([]*os.File, error) {
	if c.Spec == nil || c.Spec.Process == nil {
		return nil, fmt.Errorf("spec has no process: %w", errdefs.ErrInvalidArgument)
	}
	files := c.Stdio[:]
	if c.Spec.Process.Terminal {
		files = files[:1]
	}
	for i, f := range files {
		if f == nil {
			return nil, fmt.Errorf("stdio descriptor %d is missing: %w", i, errdefs.ErrInvalidArgument)
		}
	}
	return files, nil
}

// ttyOf is what of them travels with a container's place: its terminal.
func ttyOf(c engine.Container, stdio []*os.File) []*os.File {
	if c.Spec.Process.Terminal {
		return stdio[:1]
	}
	return nil
}

// Destroy implements engine.Sandbox.
func (s *Sandbox) Destroy(ctx context.Context, id string) error {
	entry := s.containers.get(id)
	if err := entry.lock(ctx); err != nil {
		return err
	}
	defer entry.turn.unlock()
	crashpoint.Here("before container destroy")
	if !s.sentry.proc.ended() {
		err := s.processes.settle(ctx, id)
		if err == nil {
			err = s.control.destroy(ctx, id)
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) && !s.sentry.proc.ended() {
			return err
		}
	}
	crashpoint.Here("after container destroy")
	s.volumes.table.remove(id)
	if err := s.containers.stopGofer(ctx, entry, s.sentry.proc.ended()); err != nil {
		return err
	}
	crashpoint.Here("after gofer stop")
	if s.sentry.fdStore != nil && !s.sentry.proc.ended() {
		if err := s.sentry.fdStore.drop(heldBy(id)); err != nil {
			return err
		}
	}
	s.containers.remove(entry)
	return nil
}

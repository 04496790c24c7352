package gvisor

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Sandbox implements engine.Sandbox.
type Sandbox struct {
	engine   *Engine
	cfg      engine.Config
	settings settings
	rename   bool // the root container has to be told the pod's host name

	sentry  *sentry
	control *controlPlane

	mu         sync.Mutex
	containers map[string]*container // +checklocks:mu

	// sharing is held while a container with volumes is started: what it has to join
	// is then known, and so is it to those that join it.
	sharing slot
	volumes volumeTable
	memory  map[string]bool // made already, by name; guarded by sharing
	// They serve what other containers have joined.
	retired []*gofer // +checklocks:mu

	procSys  procSysImages
	asking   slot     // held while a program runs; see ask
	kinds    sync.Map // pathKind by path; see kindInSandbox
	sysClass sysClassMount
}

// container is what this daemon knows of a container.
type container struct {
	id string

	// turn is held across Create, Start and Destroy of this container, so that
	// they do not overlap; calls of other containers go on.
	turn  slot
	gofer *gofer // guarded by turn; nil until Create, and after an adoption
	lent  bool   // guarded by Sandbox.mu: another container has joined one of its volumes

	// joining is the container that was last let into this one's pid namespace, if it
	// was not started there; guarded by turn.
	joining string

	// execs is held while an exec is begun. It guards parentless, the processes
	// without a parent when they were last listed; see findRoot.
	execs      slot
	parentless map[int32]bool
}

var _ interface {
	engine.Sandbox
	engine.Holder
	engine.PortDialer
	engine.TerminalSignaler
	engine.Counter
	engine.OOMScorer
} = (*Sandbox)(nil)

// newSandbox makes a pod's sandbox of a process that is in the pod's directory.
func (e *Engine) newSandbox(cfg engine.Config, s *sentry) *Sandbox {
	return &Sandbox{
		engine:     e,
		cfg:        cfg,
		settings:   settingsOf(cfg.NetNS == ""),
		sentry:     s,
		control:    newControlPlane(s),
		containers: map[string]*container{},
		sharing:    newSlot(),
		asking:     newSlot(),
	}
}

// Process implements engine.Sandbox.
func (s *Sandbox) Process() engine.Process { return s.sentry.proc.identity() }

// Done implements engine.Sandbox.
func (s *Sandbox) Done() <-chan struct{} { return s.sentry.proc.done }

// container returns the entry of a container, which it makes if there is none.
func (s *Sandbox) container(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		c = newContainerEntry(id)
		s.containers[id] = c
	}
	return c
}

func newContainerEntry(id string) *container {
	return &container{id: id, turn: newSlot(), execs: newSlot()}
}

// lock takes the container's turn, or says whom it would have to wait for.
func (c *container) lock(ctx context.Context) error {
	if err := c.turn.lock(ctx); err != nil {
		return fmt.Errorf("another call is at work on it: %w", err)
	}
	return nil
}

// removeUnknownEntry drops the entry of a container that the sandbox does not know,
// unless it was created here and not started yet.
//
// +checklocksignore: it only tries to lock.
func (s *Sandbox) removeUnknownEntry(c *container) {
	if c.turn.tryLock() { // else something is being done with it
		defer c.turn.unlock()
		if c.gofer == nil {
			s.removeEntry(c)
		}
	}
}

func (s *Sandbox) removeEntry(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
	}
}

// StartRoot implements engine.Sandbox.
func (s *Sandbox) StartRoot(ctx context.Context) error {
	if !s.settings.hostNetwork {
		if err := s.configureNetwork(ctx); err != nil {
			return err
		}
	}
	crashpoint.Here("before sandbox start")
	if err := s.control.call(ctx, methodStartRoot, s.sentry.root, nil); err != nil {
		return err
	}
	crashpoint.Here("after sandbox start")
	if s.rename {
		if err := s.setHostname(ctx); err != nil {
			return err
		}
	}
	return s.setSysctls(ctx)
}

// Wait implements engine.Sandbox.
func (s *Sandbox) Wait(ctx context.Context, id string) (engine.ExitStatus, error) {
	entry := s.container(id) // known from now on, also after an adoption
	status, err := s.control.wait(ctx, methodWait, id)
	if errdefs.IsNotFound(err) {
		s.removeUnknownEntry(entry)
	}
	return status, err
}

// Signal implements engine.Sandbox.
func (s *Sandbox) Signal(ctx context.Context, id string, sig int, all bool) error {
	switch {
	case all && sig == int(unix.SIGKILL):
		return s.killAll(ctx, id)
	case all:
		return s.control.signal(ctx, signalArgs{CID: id, Signo: int32(sig), Mode: signalAll})
	}
	return s.control.signal(ctx, signalArgs{CID: id, Signo: int32(sig), Mode: signalProcess})
}

// SetOOMScoreAdj implements engine.OOMScorer. Of one that has ended it is no error.
func (s *Sandbox) SetOOMScoreAdj(score int) error { return s.sentry.setOOMScoreAdj(score) }

// Kill implements engine.Sandbox.
func (s *Sandbox) Kill(ctx context.Context) error {
	if err := s.sentry.kill(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	left := make([]*container, 0, len(s.containers)+len(s.retired))
	for _, c := range s.containers {
		left = append(left, c)
	}
	for _, g := range s.retired {
		entry := newContainerEntry("") // of one that was destroyed
		entry.gofer = g
		left = append(left, entry)
	}
	s.retired = nil
	s.mu.Unlock()
	for _, c := range left {
		if err := c.lock(ctx); err != nil {
			return err
		}
		err := c.stopGofer(ctx, true)
		c.turn.unlock()
		if err != nil {
			return err
		}
	}
	s.release()
	return nil
}

// release closes what the daemon holds open for a sandbox that has ended.
func (s *Sandbox) release() {
	s.sentry.close()
	s.procSys.close()
	s.sysClass.close()
}

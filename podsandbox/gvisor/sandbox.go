package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// controlSocketName is the Sentry's socket, in Config.Dir.
const controlSocketName = "control.sock"

// Sandbox implements engine.Sandbox.
type Sandbox struct {
	engine  *Engine
	cfg     engine.Config
	onHost  bool   // its network
	root    string // id of the root container, which is the machine's; see prepare.go
	rename  bool   // the root container has to be told the pod's host name
	control controlSocket
	proc    *process
	ring    *os.File // pin ring; nil without one and after an adoption
	fdStore *fdStore // nil after the adoption of a sandbox without one

	panicLog *os.File // see logs.go

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

func (e *Engine) newSandbox(cfg engine.Config) *Sandbox {
	return &Sandbox{
		engine:     e,
		cfg:        cfg,
		onHost:     cfg.NetNS == "",
		root:       cfg.ID,
		control:    controlSocket(filepath.Join(cfg.Dir, controlSocketName)),
		containers: map[string]*container{},
		sharing:    newSlot(),
		asking:     newSlot(),
	}
}

func (s *Sandbox) hostNetwork() bool { return s.onHost }

func (s *Sandbox) settings() settings { return settingsOf(s.onHost) }

// Process implements engine.Sandbox.
func (s *Sandbox) Process() engine.Process { return s.proc.identity() }

// Done implements engine.Sandbox.
func (s *Sandbox) Done() <-chan struct{} { return s.proc.done }

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

// explain classifies the error of a control call. A connection that breaks
// because the sandbox process has ended is reported as that, with what it said last.
func (s *Sandbox) explain(err error) error {
	if isBrokenConnection(err) && s.diedWithin(context.Background(), time.Second) {
		return s.deathError("the sandbox process")
	}
	return classify(err)
}

// diedWithin waits a moment for the end of the process: its sockets close a
// little before its end can be seen.
func (s *Sandbox) diedWithin(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.proc.done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// StartRoot implements engine.Sandbox.
func (s *Sandbox) StartRoot(ctx context.Context) error {
	if !s.hostNetwork() {
		if err := s.configureNetwork(ctx); err != nil {
			return err
		}
	}
	crashpoint.Here("before sandbox start")
	if err := s.control.call(ctx, methodStartRoot, s.root, nil); err != nil {
		return s.explain(err)
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
	status, err := s.wait(ctx, methodWait, id)
	if errdefs.IsNotFound(err) {
		s.removeUnknownEntry(entry)
	}
	return status, err
}

// wait parks a call that returns a wait status. The end of the sandbox is
// SIGKILL to all in it.
func (s *Sandbox) wait(ctx context.Context, method string, arg any) (engine.ExitStatus, error) {
	// The connection breaks with the process, unless that gave its end to somebody.
	parked, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.proc.life, func() { time.AfterFunc(2*time.Second, cancel) })()
	for {
		var ws uint32
		err := s.control.park(parked, method, arg, &ws, nil)
		if err == nil {
			return exitStatus(unix.WaitStatus(ws)), nil
		}
		outlived := parked.Err() != nil && ctx.Err() == nil
		if !isBrokenConnection(err) && !outlived {
			return engine.ExitStatus{}, classify(err)
		}
		if outlived || s.diedWithin(ctx, 2*time.Second) {
			killed := engine.ExitStatus{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}
			return killed, s.deathError("the sandbox process")
		}
		// The process lives, so the answer can still be had: a status is kept
		// until the container is destroyed.
		if ctx.Err() != nil {
			return engine.ExitStatus{}, ctx.Err()
		}
		if errors.Is(err, os.ErrNotExist) {
			return engine.ExitStatus{}, classify(err)
		}
	}
}

func exitStatus(ws unix.WaitStatus) engine.ExitStatus {
	if ws.Signaled() {
		return engine.ExitStatus{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	// Of an exit, these are its code; of what no end is, they are in range.
	return engine.ExitStatus{Code: int(ws>>8) & 0xff}
}

// Signal implements engine.Sandbox.
func (s *Sandbox) Signal(ctx context.Context, id string, sig int, all bool) error {
	switch {
	case all && sig == int(unix.SIGKILL):
		return s.killAll(ctx, id)
	case all:
		return s.signal(ctx, signalArgs{CID: id, Signo: int32(sig), Mode: signalAll})
	}
	return s.signal(ctx, signalArgs{CID: id, Signo: int32(sig), Mode: signalProcess})
}

// SetOOMScoreAdj implements engine.OOMScorer. Of one that has ended it is no error.
func (s *Sandbox) SetOOMScoreAdj(score int) error {
	dir, err := s.proc.procDir()
	if err == nil {
		err = dir.setOOMScoreAdj(score)
		dir.close()
	}
	if isLost(err) || isGone(err) {
		return nil
	}
	return err
}

// Kill implements engine.Sandbox.
func (s *Sandbox) Kill(ctx context.Context) error {
	crashpoint.Here("before sandbox kill")
	if err := s.proc.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("signal process %d: %w", s.proc.pid, err)
	}
	crashpoint.Here("after sandbox kill")
	select {
	case <-s.proc.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of process %d: %w", s.proc.pid, ctx.Err())
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring != nil {
		s.ring.Close()
		s.ring = nil
	}
	if s.fdStore != nil {
		s.fdStore.close()
	}
	s.panicLog.Close() // nil answers an error
	s.procSys.close()
	s.sysClass.close()
}

// requireAlive gives calls on a dead sandbox one uniform error.
func (s *Sandbox) requireAlive() error {
	if s.proc.ended() {
		return fmt.Errorf("the sandbox process has ended: %w", errdefs.ErrUnavailable)
	}
	return nil
}

package enginetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// sandbox implements engine.Sandbox.
type sandbox struct {
	engine  *Engine
	cfg     engine.Config // guarded by engine.mu until it is bound
	bound   bool          // guarded by engine.mu
	process engine.Process
	done    chan struct{}

	mu   sync.Mutex
	dead bool // +checklocks:mu
	// StartRoot was called.
	root bool // +checklocks:mu
	// And not started.
	created map[string]bool // +checklocks:mu
	// Started, until Destroy.
	containers map[string]*process // +checklocks:mu
	commands   []*command          // +checklocks:mu
	// By container and name, "" for the streams.
	held map[string]map[string][]*os.File // +checklocks:mu
}

var _ interface {
	engine.Sandbox
	engine.Holder
	engine.PortDialer
	engine.TerminalSignaler
	engine.Counter
	engine.OOMScorer
} = (*sandbox)(nil)

// Process implements engine.Sandbox.
func (s *sandbox) Process() engine.Process { return s.process }

// Done implements engine.Sandbox.
func (s *sandbox) Done() <-chan struct{} { return s.done }

func (s *sandbox) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

func (s *sandbox) deadError() error {
	return fmt.Errorf("the sandbox process has ended: %w", errdefs.ErrUnavailable)
}

// die ends everything in the sandbox, and then the sandbox.
func (s *sandbox) die() {
	s.engine.forget(s)
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return
	}
	s.dead = true
	for _, p := range s.containers {
		p.end(killed)
	}
	for _, c := range s.commands {
		c.end(killed)
	}
	for id := range s.held {
		s.letGoLocked(id)
	}
	s.mu.Unlock()
	close(s.done)
}

// Kill implements engine.Sandbox.
func (s *sandbox) Kill(context.Context) error {
	s.die()
	return nil
}

// StartRoot implements engine.Sandbox.
func (s *sandbox) StartRoot(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return s.deadError()
	}
	s.root = true
	return ctx.Err()
}

// Create implements engine.Sandbox.
func (s *sandbox) Create(ctx context.Context, c engine.Container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead:
		return s.deadError()
	case c.Spec == nil || c.Spec.Process == nil:
		return fmt.Errorf("spec has no process: %w", errdefs.ErrInvalidArgument)
	case s.created[c.ID] || s.containers[c.ID] != nil:
		return fmt.Errorf("it was created before: %w", errdefs.ErrAlreadyExists)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.created == nil {
		s.created = map[string]bool{}
	}
	s.created[c.ID] = true
	return nil
}

// Start implements engine.Sandbox.
func (s *sandbox) Start(ctx context.Context, c engine.Container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayStartLocked(ctx, c); err != nil {
		return err
	}
	stdout := c.Stdio[1]
	streams := c.Stdio[1:]
	if c.Spec.Process.Terminal {
		stdout, streams = c.Stdio[0], nil
	}
	holds, err := duplicates(c.Hold, streams)
	if err != nil {
		return err
	}
	delete(s.created, c.ID)
	s.held[c.ID] = holds
	s.containers[c.ID] = run(parseScript(c.Spec.Process.Args), ownPIDs(c.Spec), c.Spec.Process.Terminal, stdout)
	return nil
}

// mayStartLocked says what speaks against a start.
//
// +checklocks:s.mu
func (s *sandbox) mayStartLocked(ctx context.Context, c engine.Container) error {
	switch {
	case s.dead:
		return s.deadError()
	case c.Spec == nil || c.Spec.Process == nil || len(c.Spec.Process.Args) == 0:
		return fmt.Errorf("spec has no process: %w", errdefs.ErrInvalidArgument)
	case c.Stdio[0] == nil || !c.Spec.Process.Terminal && (c.Stdio[1] == nil || c.Stdio[2] == nil):
		return fmt.Errorf("a stdio descriptor is missing: %w", errdefs.ErrInvalidArgument)
	case s.containers[c.ID] != nil:
		return fmt.Errorf("it was started before: %w", errdefs.ErrFailedPrecondition)
	}
	return ctx.Err()
}

func ownPIDs(s *specs.Spec) bool {
	if s.Linux == nil {
		return false
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path == "" {
			return true
		}
	}
	return false
}

// Learn implements engine.Sandbox.
func (s *sandbox) Learn(context.Context, engine.Container) error { return nil }

// Recover implements engine.Sandbox.
func (s *sandbox) Recover(_ context.Context, c engine.Container) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false, s.deadError()
	}
	return s.containers[c.ID] != nil, nil
}

// Update implements engine.Sandbox. No process of the fake looks at its limits.
func (s *sandbox) Update(_ context.Context, id string, _ *specs.LinuxResources) error {
	if s.isDead() {
		return s.deadError()
	}
	if _, err := s.find(id); err != nil {
		return err
	}
	return nil
}

// Wait implements engine.Sandbox.
func (s *sandbox) Wait(ctx context.Context, id string) (engine.ExitStatus, error) {
	p, err := s.find(id)
	if err != nil {
		if s.isDead() {
			return killed, s.deadError()
		}
		return engine.ExitStatus{}, err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return engine.ExitStatus{}, ctx.Err()
	}
	if s.isDead() {
		return killed, s.deadError()
	}
	return p.status, nil
}

func (s *sandbox) find(id string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.containers[id]; p != nil && !s.dead {
		return p, nil
	}
	if s.dead {
		return nil, s.deadError()
	}
	return nil, fmt.Errorf("it is not in the sandbox: %w", errdefs.ErrNotFound)
}

// Signal implements engine.Sandbox.
func (s *sandbox) Signal(ctx context.Context, id string, sig int, all bool) error {
	p, err := s.find(id)
	if err == nil && !all && p.hasEnded() {
		err = fmt.Errorf("it has ended: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	p.signal(sig)
	if p.hasEnded() {
		s.endCommands(id)
	}
	return ctx.Err()
}

// SignalForeground implements engine.TerminalSignaler.
func (s *sandbox) SignalForeground(ctx context.Context, id string, sig int) error {
	p, err := s.find(id)
	if err == nil && !p.terminal {
		err = fmt.Errorf("no terminal: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	p.signal(sig)
	return ctx.Err()
}

// DialPort implements engine.PortDialer. Nobody listens.
func (s *sandbox) DialPort(context.Context, uint16) (net.Conn, error) {
	if s.isDead() {
		return nil, s.deadError()
	}
	return nil, fmt.Errorf("%w: %w", unix.ECONNREFUSED, errdefs.ErrFailedPrecondition)
}

// Destroy implements engine.Sandbox.
func (s *sandbox) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.containers[id]; p != nil {
		p.end(killed)
	}
	for _, c := range s.commands {
		if c.id == id {
			c.end(killed)
		}
	}
	delete(s.created, id)
	delete(s.containers, id)
	s.letGoLocked(id)
	return nil
}

// Stats implements engine.Sandbox.
func (s *sandbox) Stats(context.Context) (map[string]engine.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, s.deadError()
	}
	use := map[string]engine.Usage{}
	for id, p := range s.containers {
		if !p.hasEnded() {
			use[id] = engine.Usage{CPU: time.Millisecond, CPUUser: time.Millisecond, MemoryBytes: 1 << 20, Pids: 1}
		}
	}
	return use, nil
}

// Descriptors implements engine.Counter. Nobody opens any but stdio.
func (s *sandbox) Descriptors(_ context.Context, ids []string) (map[string]engine.Descriptors, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, s.deadError()
	}
	counts := map[string]engine.Descriptors{}
	for _, id := range ids {
		if p := s.containers[id]; p != nil && !p.hasEnded() {
			counts[id] = engine.Descriptors{Open: 3}
		}
	}
	return counts, nil
}

// Inodes implements engine.Counter. Nobody makes any.
func (s *sandbox) Inodes(_ context.Context, ids []string) (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, s.deadError()
	}
	counts := map[string]uint64{}
	for _, id := range ids {
		if p := s.containers[id]; p != nil && !p.hasEnded() {
			counts[id] = 1
		}
	}
	return counts, nil
}

// SetOOMScoreAdj implements engine.OOMScorer.
func (s *sandbox) SetOOMScoreAdj(int) error { return nil }

// Package enginetest holds the contract of package engine as a suite of tests,
// and an engine in memory that keeps it, for tests of what stands on an engine.
//
// The suite runs on both, so what it says of the fake is true of a real sandbox.
// What the fake does not have: file systems (a container's root is not looked at),
// a network, listening ports, and programs. Its processes understand the few
// commands of a shell that [script] lists and do nothing else, so that the same
// request can be given to a real sandbox. When they end is up to the test: by what
// the commands say, by a signal, or with [Engine.KillSandbox].
//
// Sandboxes live in the Engine, as processes live on a node: a second daemon in
// the same test adopts those of the first by using the same Engine. Nothing is
// written to disk.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// firstPID is above what a kernel gives out, so that a mistaken signal or a look
// into /proc meets no process.
const firstPID = 1 << 29

// Engine implements engine.Engine in memory. It is safe for concurrent use.
type Engine struct {
	mu sync.Mutex
	// By id, those that live.
	sandboxes map[string]*sandbox // +checklocks:mu
	// Sandboxes so far.
	started int // +checklocks:mu
}

var _ engine.Engine = (*Engine)(nil)

// New returns a node without sandboxes.
func New() *Engine { return &Engine{sandboxes: map[string]*sandbox{}} }

// Capabilities implements engine.Engine: whatever can be pretended where nothing is
// looked at.
func (*Engine) Capabilities() engine.Capabilities {
	return engine.Capabilities{
		HostPID: true, HostIPC: true, HostDevices: true, BidirectionalMounts: true,
		UserNamespaces: true, RecursiveReadOnlyMounts: true,
	}
}

// Validate implements engine.Engine. There is nothing that the fake could not pretend.
func (*Engine) Validate(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig) error { return nil }

// ValidateSpec implements engine.Engine.
func (*Engine) ValidateSpec(before, after *specs.Spec) error { return nil }

// Boot implements engine.Engine.
func (e *Engine) Boot(ctx context.Context, cfg engine.Config) (engine.Sandbox, error) {
	p, err := e.Prepare(ctx, cfg.Machine())
	if err != nil {
		return nil, err
	}
	return p.Bind(ctx, cfg)
}

// prepared implements engine.Prepared.
type prepared struct {
	machine engine.Machine
	sandbox *sandbox
}

// Prepare implements engine.Engine.
func (e *Engine) Prepare(ctx context.Context, m engine.Machine) (engine.Prepared, error) {
	cfg := engine.Config{ID: m.ID, Dir: m.Dir}
	if err := e.check(ctx, cfg); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sandboxes[cfg.ID] != nil {
		return nil, fmt.Errorf("it runs: %w", errdefs.ErrAlreadyExists)
	}
	e.started++
	s := &sandbox{
		engine: e, cfg: cfg, done: make(chan struct{}), containers: map[string]*process{}, held: map[string]map[string][]*os.File{},
		process: engine.Process{PID: firstPID + e.started, StartTime: uint64(e.started)},
	}
	e.sandboxes[cfg.ID] = s
	return &prepared{m, s}, nil
}

// Bind implements engine.Prepared.
func (p *prepared) Bind(ctx context.Context, cfg engine.Config) (engine.Sandbox, error) {
	s, e := p.sandbox, p.sandbox.engine
	if err := e.check(ctx, cfg); err != nil {
		s.die()
		return nil, err
	}
	want, has := cfg.Machine(), p.machine
	if want.HostNetwork != has.HostNetwork || !reflect.DeepEqual(want.IDs, has.IDs) || want.MemoryLimit != has.MemoryLimit ||
		want.CPUQuota != has.CPUQuota || want.CPUPeriod != has.CPUPeriod ||
		len(want.CgroupPaths) == 0 && len(has.CgroupPaths) > 0 {
		return nil, fmt.Errorf("it was booted for another kind of pod: %w", errdefs.ErrFailedPrecondition)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case s.bound:
		return nil, fmt.Errorf("it is bound: %w", errdefs.ErrFailedPrecondition)
	case e.sandboxes[s.cfg.ID] != s:
		return nil, s.deadError()
	case cfg.ID != s.cfg.ID && e.sandboxes[cfg.ID] != nil:
		return nil, fmt.Errorf("there is a sandbox of this id: %w", errdefs.ErrFailedPrecondition)
	}
	delete(e.sandboxes, s.cfg.ID)
	s.cfg, s.bound = cfg, true
	e.sandboxes[cfg.ID] = s
	return s, nil
}

// Discard implements engine.Prepared.
func (p *prepared) Discard(context.Context) error {
	e := p.sandbox.engine
	e.mu.Lock()
	bound := p.sandbox.bound
	e.mu.Unlock()
	if !bound {
		p.sandbox.die()
	}
	return nil
}

// Adopt implements engine.Engine.
func (e *Engine) Adopt(ctx context.Context, cfg engine.Config, p engine.Process) (engine.Sandbox, error) {
	if err := e.check(ctx, cfg); err != nil {
		return nil, err
	}
	s := e.find(cfg.ID)
	if s == nil || s.process != p {
		return nil, fmt.Errorf("process %d is not its: %w", p.PID, errdefs.ErrNotFound)
	}
	return s, nil
}

// Reap implements engine.Engine.
func (e *Engine) Reap(_ context.Context, id string) error {
	e.KillSandbox(id)
	return nil
}

// Find implements engine.Engine.
func (e *Engine) Find(dir string, _ map[string]bool) ([]engine.Found, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []engine.Found
	for id, s := range e.sandboxes {
		if strings.HasPrefix(s.cfg.Dir, filepath.Clean(dir)+"/") {
			found = append(found, engine.Found{Process: s.process, Sandbox: id, Role: "sandbox", Kill: s.Kill})
		}
	}
	return found, nil
}

// KillSandbox ends a sandbox as a signal to its process would, and tells whether
// there was one.
func (e *Engine) KillSandbox(id string) bool {
	s := e.find(id)
	if s == nil {
		return false
	}
	s.die()
	return true
}

// Sandboxes are the ids of those that live.
func (e *Engine) Sandboxes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id := range e.sandboxes {
		ids = append(ids, id)
	}
	return ids
}

func (e *Engine) find(id string) *sandbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sandboxes[id]
}

func (e *Engine) forget(s *sandbox) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sandboxes[s.cfg.ID] == s {
		delete(e.sandboxes, s.cfg.ID)
	}
}

func (e *Engine) check(ctx context.Context, cfg engine.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if cfg.ID == "" || cfg.Dir == "" {
		return fmt.Errorf("no id or no directory: %w", errdefs.ErrInvalidArgument)
	}
	if _, err := os.Stat(cfg.Dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

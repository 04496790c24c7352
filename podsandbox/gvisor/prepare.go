package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// prepared implements engine.Prepared.
type prepared struct {
	engine  *Engine
	machine engine.Machine

	mu sync.Mutex // held across Bind and Discard
	// sentry is nil once it is bound or discarded.
	sentry *sentry // +checklocks:mu
}

// Prepare implements engine.Engine. The root container gets the machine's id: nothing
// but its name in calls of the control socket.
func (e *Engine) Prepare(ctx context.Context, m engine.Machine) (engine.Prepared, error) {
	if err := checkMachine(m); err != nil {
		return nil, err
	}
	netns, err := machineNetNS(m)
	if err != nil {
		return nil, err
	}
	if netns != nil {
		defer netns.Close()
	}
	crashpoint.Here("before sandbox spawn")
	s, booted, err := e.spawnSentry(m, netns)
	if err != nil {
		return nil, err
	}
	cu := cleanup.Make(s.end)
	defer cu.Clean()
	crashpoint.Here("after sandbox spawn")
	defer booted.Close()
	if err := s.awaitBooted(ctx, booted); err != nil {
		return nil, err
	}
	crashpoint.Here("after sandbox boot")
	cu.Release()
	return &prepared{engine: e, machine: m, sentry: s}, nil
}

// machineNetNS is the network namespace that a machine is born in; nil is the daemon's.
func machineNetNS(m engine.Machine) (*os.File, error) {
	switch {
	case m.HostNetwork:
		return nil, nil
	case m.NetNS == "":
		return newEmptyNetNS()
	}
	return openNetNS(m.NetNS)
}

func openNetNS(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return f, nil
}

// Bind implements engine.Prepared.
func (p *prepared) Bind(_ context.Context, cfg engine.Config) (engine.Sandbox, error) {
	e, m := p.engine, p.machine
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sentry
	if s == nil {
		return nil, fmt.Errorf("it is bound or discarded already: %w", errdefs.ErrFailedPrecondition)
	}
	if err := e.checkBinding(m, cfg); err != nil {
		return nil, err
	}
	p.sentry = nil
	err := s.requireAlive()
	if err == nil {
		err = s.bind(m, cfg)
	}
	if err != nil {
		s.end()
		return nil, err
	}
	bound := e.newSandbox(cfg, s)
	bound.rename = cfg.Hostname != m.Hostname
	return bound, nil
}

// Discard implements engine.Prepared.
func (p *prepared) Discard(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sentry != nil {
		p.sentry.end()
		p.sentry = nil
	}
	return nil
}

// checkBinding refuses to make of a machine what its process was not born for.
func (e *Engine) checkBinding(m engine.Machine, cfg engine.Config) error {
	want := cfg.Machine()
	switch {
	case want.HostNetwork != m.HostNetwork:
		return fmt.Errorf("a sandbox cannot change between the host's network and one of its own: %w", errdefs.ErrFailedPrecondition)
	case !reflect.DeepEqual(want.IDs, m.IDs):
		return fmt.Errorf("a sandbox cannot change its user namespace: %w", errdefs.ErrFailedPrecondition)
	case len(want.CgroupPaths) == 0 && len(m.CgroupPaths) > 0:
		return fmt.Errorf("a sandbox cannot leave its cgroup for none: %w", errdefs.ErrFailedPrecondition)
	case !slices.Equal(e.sizeFlags(want), e.sizeFlags(m)):
		return fmt.Errorf("a sandbox cannot change the size of its machine: %w", errdefs.ErrFailedPrecondition)
	}
	if err := checkMachine(want); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// bind gives a sandbox what a pod has and its machine has not. Its process is in the
// pod's cgroup, and so found by the pod's id, before its socket is where Adopt looks.
func (s *sentry) bind(m engine.Machine, cfg engine.Config) error {
	if cfg.NetNS != "" && cfg.NetNS != m.NetNS {
		netns, err := openNetNS(cfg.NetNS) // read in StartRoot
		if err != nil {
			return err
		}
		netns.Close()
	}
	if cfg.ID != m.ID {
		if err := writeRootID(cfg, m.ID); err != nil {
			return err
		}
	}
	if !slices.Equal(cfg.CgroupPaths, m.CgroupPaths) {
		if err := s.proc.moveTo(cfg.CgroupPaths); err != nil {
			return err
		}
	}
	if score := cfg.OOMScoreAdj; score != nil && (m.OOMScoreAdj == nil || *score != *m.OOMScoreAdj) {
		if err := s.setOOMScoreAdj(*score); err != nil {
			return err
		}
	}
	if cfg.Dir == m.Dir {
		return nil
	}
	return s.moveFiles(cfg.Dir)
}

// rootIDName is the file in Config.Dir with the id of the root container, where that is
// not the pod's.
const rootIDName = "root-id"

func writeRootID(cfg engine.Config, id string) error {
	if err := os.WriteFile(filepath.Join(cfg.Dir, rootIDName), []byte(id), 0o600); err != nil {
		return fmt.Errorf("write the id of the root container: %w", err)
	}
	return nil
}

func readRootID(cfg engine.Config) (string, error) {
	id, err := os.ReadFile(filepath.Join(cfg.Dir, rootIDName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cfg.ID, nil
	case err != nil:
		return "", fmt.Errorf("read the id of the root container: %w", err)
	}
	return string(id), nil
}

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

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// prepared implements engine.Prepared.
type prepared struct {
	machine engine.Machine

	mu sync.Mutex // held across Bind and Discard
	// sandbox is nil once it is bound or discarded.
	sandbox *Sandbox // +checklocks:mu
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
	s := e.newSandbox(engine.Config{ID: m.ID, Dir: m.Dir, IDs: m.IDs, CgroupPaths: m.CgroupPaths})
	s.onHost = m.HostNetwork
	cu := cleanup.Make(func() {})
	defer cu.Clean()
	crashpoint.Here("before sandbox spawn")
	booted, err := s.spawn(m, netns)
	if err != nil {
		s.release()
		return nil, err
	}
	crashpoint.Here("after sandbox spawn")
	defer booted.Close()
	cu.Add(s.end)
	if err := s.awaitBooted(ctx, booted); err != nil {
		return nil, err
	}
	crashpoint.Here("after sandbox boot")
	cu.Release()
	return &prepared{machine: m, sandbox: s}, nil
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

// end kills a sandbox without containers.
func (s *Sandbox) end() {
	_ = s.proc.signal(unix.SIGKILL)
	<-s.proc.done
	s.release()
}

// Bind implements engine.Prepared.
func (p *prepared) Bind(_ context.Context, cfg engine.Config) (engine.Sandbox, error) {
	m := p.machine
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sandbox
	if s == nil {
		return nil, fmt.Errorf("it is bound or discarded already: %w", errdefs.ErrFailedPrecondition)
	}
	if err := s.engine.checkBinding(m, cfg); err != nil {
		return nil, err
	}
	p.sandbox = nil
	err := s.requireAlive()
	if err == nil {
		err = s.bind(m, cfg)
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// Discard implements engine.Prepared.
func (p *prepared) Discard(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sandbox != nil {
		p.sandbox.end()
		p.sandbox = nil
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
func (s *Sandbox) bind(m engine.Machine, cfg engine.Config) error {
	s.cfg = cfg
	if cfg.NetNS != "" && cfg.NetNS != m.NetNS {
		netns, err := openNetNS(cfg.NetNS) // read in StartRoot
		if err != nil {
			return err
		}
		netns.Close()
	}
	s.rename = cfg.Hostname != m.Hostname
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
		if err := s.SetOOMScoreAdj(*score); err != nil {
			return err
		}
	}
	if cfg.Dir == m.Dir {
		return nil
	}
	return s.moveFiles(m.Dir, cfg.Dir)
}

// moveFiles takes what the sandbox has on disk to the pod's directory. A socket is found
// by its file, wherever that was when it was bound.
func (s *Sandbox) moveFiles(from, to string) error {
	for _, name := range []string{bootLogName, controlSocketName} {
		err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && (name == controlSocketName || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("move to the directory of the pod: %w", err)
		}
	}
	s.control = controlSocket(filepath.Join(to, controlSocketName))
	return nil
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

// setHostname gives a sandbox the pod's host name, which all its containers have from
// the root container. It is told at the boot otherwise.
func (s *Sandbox) setHostname(ctx context.Context) error {
	status, err := s.runProgram(ctx, rootProgram{
		file: s.engine.setHostname, args: []string{"set-hostname", s.cfg.Hostname}, capabilities: []string{"CAP_SYS_ADMIN"},
	})
	switch {
	case err != nil:
		return fmt.Errorf("set host name: %w", err)
	case status.Signal != 0:
		return fmt.Errorf("set host name: program ended with status %d: %w", status.Code, errdefs.ErrInternal)
	case status.Code != 0:
		return fmt.Errorf("set host name %q: %w: %w", s.cfg.Hostname, unix.Errno(status.Code), errdefs.ErrInvalidArgument)
	}
	return nil
}

package gvisor

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Sandbox implements engine.Sandbox. It puts the steps of each call into their order; what
// they work on belongs to its parts, of which each knows those alone that it calls. It has
// no lock, and none of its fields changes once it is made.
type Sandbox struct {
	engine   *Engine
	cfg      engine.Config
	settings settings
	rename   bool // the root container has to be told the pod's host name

	sentry        *sentry         // the process
	control       *controlPlane   // calls to it
	containers    *containers     // the register
	translator    *translator     // specs
	gofers        *gofers         // the processes that serve file systems
	programs      *rootPrograms   // in the root container
	processes     *guestProcesses // of containers
	volumes       *sharedVolumes  // between containers
	pidNamespaces *pidNamespaces  // between containers
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
	st, control, known := settingsOf(cfg.NetNS == ""), newControlPlane(s), newContainers()
	programs := newRootPrograms(e, control, cfg.ID)
	return &Sandbox{
		engine:        e,
		cfg:           cfg,
		settings:      st,
		sentry:        s,
		control:       control,
		containers:    known,
		translator:    &translator{control: control, cfg: cfg, settings: st, usual: &e.procSys},
		gofers:        &gofers{engine: e, cfg: cfg, settings: st, sentry: s},
		programs:      programs,
		processes:     &guestProcesses{control: control, containers: known, null: e.null, log: e.log},
		volumes:       &sharedVolumes{control: control, programs: programs, containers: known, log: e.log, turn: newSlot()},
		pidNamespaces: &pidNamespaces{control: control, containers: known},
	}
}

// Process implements engine.Sandbox.
func (s *Sandbox) Process() engine.Process { return s.sentry.proc.identity() }

// Done implements engine.Sandbox.
func (s *Sandbox) Done() <-chan struct{} { return s.sentry.proc.done }

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
		if err := s.programs.setHostname(ctx, s.cfg.Hostname); err != nil {
			return err
		}
	}
	return s.programs.setSysctls(ctx, s.cfg.Sysctls)
}

// Wait implements engine.Sandbox.
func (s *Sandbox) Wait(ctx context.Context, id string) (engine.ExitStatus, error) {
	entry := s.containers.get(id) // known from now on, also after an adoption
	status, err := s.control.wait(ctx, methodWait, id)
	if errdefs.IsNotFound(err) {
		s.containers.removeUnknown(entry)
	}
	return status, err
}

// Signal implements engine.Sandbox.
func (s *Sandbox) Signal(ctx context.Context, id string, sig int, all bool) error {
	switch {
	case all && sig == int(unix.SIGKILL):
		return s.processes.killAll(ctx, id)
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
	if err := s.containers.stopAllGofers(ctx); err != nil {
		return err
	}
	s.release()
	return nil
}

// release closes what the daemon holds open for a sandbox that has ended.
func (s *Sandbox) release() {
	s.sentry.close()
	s.translator.close()
}

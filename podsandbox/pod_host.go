package podsandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// podHost makes what a pod holds on the host, and gives it back: its cgroup, its network
// namespace and addresses, and the process of its sandbox. Giving back is idempotent.
type podHost struct {
	engines   engine.Handlers
	cni       network.Network
	node      network.Network // for pods on the host's network
	resources *resources.Controller
	paths     layout.Paths
	timeouts  Timeouts
}

// engineOf is the engine that runs a pod, by its record.
func (h *podHost) engineOf(p *state.Pod) (engine.Engine, error) {
	e, err := h.engines.Engine(p.Meta.Handler)
	if err != nil {
		return nil, fmt.Errorf("reach its sandbox: %v: %w", err, errdefs.ErrFailedPrecondition)
	}
	return e, nil
}

// engineConfig is what the engine is told of a pod. It is derived from the record each
// time, so that a restarted daemon tells it the same.
func (h *podHost) engineConfig(p *state.Pod) (engine.Config, error) {
	hostname, err := podHostname(p)
	if err != nil {
		return engine.Config{}, err
	}
	cfg := engine.Config{
		ID: p.ID(), Dir: h.paths.Engine(p.ID()), Hostname: hostname, NetNS: p.NetNS,
		Sysctls: p.Config().GetLinux().GetSysctls(), OOMScoreAdj: new(resources.SandboxOOMScore), IDs: p.IDs(),
	}
	if g := p.Group(); g != nil {
		cfg.CgroupPaths = g.Paths()
		memory, quota, period, err := g.EffectiveLimits()
		if err != nil {
			return engine.Config{}, fmt.Errorf("read the pod's limits: %w", err)
		}
		cfg.MemoryLimit, cfg.CPUQuota, cfg.CPUPeriod = memory, quota, int64(period)
	}
	return cfg, nil
}

// boot starts the pod's sandbox and records which process it is.
func (h *podHost) boot(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, h.timeouts.Sandbox)
	defer cancel()
	e, err := h.engineOf(p)
	if err != nil {
		return err
	}
	cfg, err := h.engineConfig(p)
	if err != nil {
		return err
	}
	sb, err := e.Boot(ctx, cfg)
	if err != nil {
		return fmt.Errorf("boot sandbox: %w", err)
	}
	p.SetSandbox(sb)
	if err := p.Group().Adopt(ctx, sb.Process().PID, resources.Limits(p)); err != nil {
		return fmt.Errorf("hand cgroup to systemd: %w", err)
	}
	return p.Update(func(st *record.PodStatus) error {
		st.Process = sb.Process()
		return nil
	})
}

// kill ends the sandbox process, and waits for that.
func (h *podHost) kill(ctx context.Context, p *state.Pod) error {
	if sb := p.Sandbox(); sb != nil {
		return sb.Kill(ctx)
	}
	e, err := h.engineOf(p) // booted by an earlier daemon, or not at all
	if err != nil {
		return err
	}
	return e.Reap(ctx, p.ID())
}

// bootAndConnect runs CNI ADD and the boot side by side: the sandbox looks at
// its interfaces only in StartRoot.
func (h *podHost) bootAndConnect(ctx context.Context, p *state.Pod) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.connect(ctx, p) })
	g.Go(func() error { return h.boot(ctx, p) })
	return g.Wait()
}

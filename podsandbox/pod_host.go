package podsandbox

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
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
	timeouts  timeouts
}

// engineOf is the engine that runs a pod, by its record.
func (h *podHost) engineOf(p *state.Pod) (engine.Engine, error) {
	e, err := h.engines.Engine(p.Meta.Handler)
	if err != nil {
		return nil, fmt.Errorf("reach its sandbox: %v: %w", err, errdefs.ErrFailedPrecondition)
	}
	return e, nil
}

// makeGroup makes the pod's cgroup. Its parent is noted first, for when the record is
// lost.
func (h *podHost) makeGroup(p *state.Pod) error {
	parent := p.Config().GetLinux().GetCgroupParent()
	if err := os.WriteFile(h.paths.Cgroup(p.ID()), []byte(parent), 0o600); err != nil {
		return fmt.Errorf("note the cgroup's parent: %w", err)
	}
	crashpoint.Here("after cgroup note")
	g, err := cgroup.Create(parent, p.ID(), cgroup.Limits{})
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	g.SetOwner(h.paths.CgroupOwner())
	p.SetGroup(g)
	if err := h.resources.Fit(p); err != nil { // by what is above it, too
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// makeNamespace makes and pins the pod's network namespace, if it has one.
func (h *podHost) makeNamespace(p *state.Pod) error {
	if p.NetNS == "" {
		return nil
	}
	if err := network.CreateNamespace(p.NetNS); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	return nil
}

// bootAndConnect runs CNI ADD and the boot side by side: the sandbox looks at
// its interfaces only in StartRoot.
func (h *podHost) bootAndConnect(ctx context.Context, p *state.Pod) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.connect(ctx, p) })
	g.Go(func() error { return h.boot(ctx, p) })
	return g.Wait()
}

// connect attaches the pod to its network and records its addresses.
func (h *podHost) connect(ctx context.Context, p *state.Pod) error {
	np := networkPod(p)
	var err error
	np.IngressBandwidth, np.EgressBandwidth, err = network.ParseBandwidth(np.Annotations)
	if err != nil {
		return err
	}
	res, err := h.networkOf(p).Attach(ctx, np)
	if err != nil {
		return fmt.Errorf("attach network: %w", err)
	}
	return p.Update(func(st *record.PodStatus) error {
		st.IPs = res.IPs
		return nil
	})
}

// networkOf chooses the pod's network.
func (h *podHost) networkOf(p *state.Pod) network.Network {
	if p.HostNetwork() {
		return h.node
	}
	return h.cni
}

// networkPod is what the network is told of a pod. It is derived from the record each
// time, so that a restarted daemon tells it the same.
func networkPod(p *state.Pod) network.Pod {
	cfg := p.Config()
	md := cfg.GetMetadata()
	np := network.Pod{
		ID: p.ID(), Namespace: md.GetNamespace(), Name: md.GetName(), UID: md.GetUid(),
		NetNS:       p.NetNS,
		Annotations: cfg.GetAnnotations(),
		CgroupPath:  cfg.GetLinux().GetCgroupParent(),
	}
	for _, pm := range cfg.GetPortMappings() {
		if pm.GetHostPort() == 0 {
			continue // only declared, as the kubelet does for ports without a host port
		}
		np.PortMappings = append(np.PortMappings, network.PortMapping{
			Protocol:      pm.GetProtocol().String(),
			ContainerPort: pm.GetContainerPort(), HostPort: pm.GetHostPort(), HostIP: pm.GetHostIp(),
		})
	}
	if dns := cfg.GetDnsConfig(); dns != nil {
		np.DNS = network.DNSConfig{Servers: dns.GetServers(), Searches: dns.GetSearches(), Options: dns.GetOptions()}
	}
	return np
}

// boot starts the pod's sandbox and records which process it is.
func (h *podHost) boot(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, h.timeouts.sandbox)
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

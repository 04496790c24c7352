package podsandbox

import (
	"fmt"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// What the engine, the network and the cgroup are told of a pod is derived from
// its record each time, so that a restarted daemon tells them the same.

func (m *Manager) engineConfig(p *pod) (engine.Config, error) {
	hostname, err := podHostname(p)
	if err != nil {
		return engine.Config{}, err
	}
	cfg := engine.Config{
		ID: p.id(), Dir: m.paths.engine(p.id()), Hostname: hostname,
		Sysctls: p.config().GetLinux().GetSysctls(), OOMScoreAdj: new(sandboxOOMScore), IDs: p.ids(),
	}
	if !p.hostNetwork() {
		cfg.NetNS = m.paths.netns(p.id())
	}
	if g := p.getGroup(); g != nil {
		cfg.CgroupPaths = g.Paths()
		memory, quota, period, err := g.EffectiveLimits()
		if err != nil {
			return engine.Config{}, fmt.Errorf("read the pod's limits: %w", err)
		}
		cfg.MemoryLimit, cfg.CPUQuota, cfg.CPUPeriod = memory, quota, int64(period)
	}
	return cfg, nil
}

func (m *Manager) networkPod(p *pod) network.Pod {
	cfg := p.config()
	md := cfg.GetMetadata()
	np := network.Pod{
		ID: p.id(), Namespace: md.GetNamespace(), Name: md.GetName(), UID: md.GetUid(),
		NetNS:       m.paths.netns(p.id()),
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

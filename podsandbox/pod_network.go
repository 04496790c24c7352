package podsandbox

import (
	"context"
	"fmt"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// networkOf chooses the pod's network.
func (h *podHost) networkOf(p *state.Pod) network.Network {
	if p.HostNetwork() {
		return h.node
	}
	return h.cni
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

// connect attaches the pod to its network and records its addresses.
func (h *podHost) connect(ctx context.Context, p *state.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, h.timeouts.Network)
	defer cancel()
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

// disconnect gives back the pod's addresses, then its namespace. The network's
// own cache knows what to undo, also when the namespace is gone.
//
// Only a pod that is not Ready on record gives back its addresses. Else a daemon
// that is started before the sandbox is killed would adopt it without a network.
// And the network's cache is on the same disk: an attachment that cannot be taken
// off it would claim addresses that another pod has by the time of the next DEL,
// and some plugins delete rules by address alone.
func (h *podHost) disconnect(ctx context.Context, p *state.Pod) error {
	if p.NetNS == "" {
		return nil
	}
	if err := p.Persist(); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeouts.Network)
	defer cancel()
	if err := h.cni.Detach(ctx, networkPod(p)); err != nil {
		return fmt.Errorf("detach network: %w", err)
	}
	if err := network.RemoveNamespace(p.NetNS); err != nil {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
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

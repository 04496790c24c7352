package gvisor

import (
	"fmt"
	"net"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// addRoute sorts a route into the link's own or the pod's default ones. Without a
// gateway the link reaches the destinations themselves.
func (args *networkArgs) addRoute(l *packetLink, r netlink.Route) error {
	if r.Via != nil {
		return fmt.Errorf("route of %s has a gateway of another address family (%s), which a sandbox does not take: %w", l.Name, r.Via, errdefs.ErrFailedPrecondition)
	}
	dst := r.Dst
	isDefault := dst == nil
	if dst != nil {
		ones, _ := dst.Mask.Size()
		isDefault = ones == 0
	}
	if !isDefault {
		l.Routes = append(l.Routes, route{
			Destination: net.IPNet{IP: dst.IP.Mask(dst.Mask), Mask: dst.Mask},
			Gateway:     r.Gw, MTU: uint32(r.MTU),
		})
		return nil
	}
	to, zero := &args.Defaultv4Gateway, net.IPv4zero.To4()
	if r.Family == netlink.FAMILY_V6 {
		to, zero = &args.Defaultv6Gateway, net.IPv6zero
	}
	if to.Name != "" {
		return fmt.Errorf("two default routes, by %s and %s; a sandbox takes one for each address family: %w", to.Name, l.Name, errdefs.ErrFailedPrecondition)
	}
	to.Name = l.Name
	to.Route = route{Destination: net.IPNet{IP: zero, Mask: net.IPMask(zero)}, Gateway: r.Gw, MTU: uint32(r.MTU)}
	return nil
}

// Next hops of links that resolve no addresses, for routes without a gateway.
var (
	nextHop4 = net.IPv4(169, 254, 1, 1).To4()
	nextHop6 = net.ParseIP("fe80::1")
)

// nextHopWithoutARP returns the gateway through which the sandbox uses a route of a
// link that resolves no addresses, as ipvlan in layer 3: asked who has one, nobody
// there answers, and the Sentry asks on all links with a hardware address. It asks
// for no gateway whose address it knows, and that is given: the link's own, to
// which Linux sends there, too.
func (l *packetLink) nextHopWithoutARP(r netlink.Route) net.IP {
	if len(l.LinkAddress) == 0 || r.Via != nil {
		return r.Gw
	}
	hop := r.Gw
	if hop == nil {
		hop = nextHop4
		if r.Family == netlink.FAMILY_V6 {
			hop = nextHop6
		}
	}
	if !slices.ContainsFunc(l.Neighbors, func(n neighbor) bool { return n.IP.Equal(hop) }) {
		l.Neighbors = append(l.Neighbors, neighbor{IP: hop, HardwareAddr: l.LinkAddress})
	}
	return hop
}

package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// Network is the pods' network.
type Network struct {
	layout  Layout
	Subnet  netip.Prefix // IPv4 addresses of the pods
	Subnet6 netip.Prefix // valid with Options.DualStack
}

// WriteNetwork writes the network's configuration: a bridge that is
// the pods' gateway, masquerading, and port mappings.
func (n Network) WriteNetwork() error {
	ranges := [][]any{{map[string]any{"subnet": n.Subnet.String()}}}
	routes := []any{map[string]any{"dst": "0.0.0.0/0"}}
	if n.Subnet6.IsValid() {
		ranges = append(ranges, []any{map[string]any{"subnet": n.Subnet6.String()}})
		routes = append(routes, map[string]any{"dst": "::/0"})
	}
	conf := map[string]any{
		"cniVersion": "1.1.0",
		"name":       n.layout.Name,
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": n.layout.Name,
				"isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": map[string]any{"type": "host-local", "dataDir": n.layout.LeaseDir, "ranges": ranges, "routes": routes},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network config: %w", err)
	}
	// Written beside and renamed: the daemon reads the directory at any time.
	path := filepath.Join(n.layout.CNIConfDir, "10-"+n.layout.Name+".conflist")
	if err := os.WriteFile(path+".tmp", b, 0o644); err != nil {
		return fmt.Errorf("write network config: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write network config: %w", err)
	}
	return nil
}

// newNetwork takes a random /24 below 10.0.0.0/8 that overlaps with no address
// and no route of the machine. Random, so that two environments that choose at the
// same moment, before either has a bridge, do not choose the same.
func newNetwork(l Layout, dualStack bool) (Network, error) {
	taken, err := takenPrefixes()
	if err != nil {
		return Network{}, fmt.Errorf("choose subnet: %w", err)
	}
	for range 1000 {
		hi, lo := byte(64+rand.IntN(192)), byte(rand.IntN(256))
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24)
		if overlapsAny(p, taken) {
			continue
		}
		n := Network{layout: l, Subnet: p}
		if dualStack {
			a := netip.AddrFrom16([16]byte{0xfd, 0x0c, 0x5b, byte(rand.IntN(256)), byte(rand.IntN(256)), byte(rand.IntN(256)), hi, lo})
			n.Subnet6 = netip.PrefixFrom(a, 64)
		}
		return n, nil
	}
	return Network{}, errors.New("choose subnet: 10.64.0.0/10 and above are all taken by routes of this machine")
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Bits() > 0 && t.Overlaps(p) { // a default route overlaps everything
			return true
		}
	}
	return false
}

// whole repeats a listing of the node's until nothing has changed meanwhile.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 100 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// takenPrefixes lists the IPv4 networks of all addresses and routes.
func takenPrefixes() ([]netip.Prefix, error) {
	var nets []*net.IPNet
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		nets = append(nets, a.IPNet)
	}
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		nets = append(nets, r.Dst)
	}
	var out []netip.Prefix
	for _, n := range nets {
		if n == nil {
			continue
		}
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

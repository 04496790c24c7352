package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// configureNetwork takes the interfaces, addresses and routes of the pod's
// network namespace into the sandbox, which then answers for them: its packet
// sockets see all that arrives, and the host's stack in the namespace is
// kept from it.
func (s *Sandbox) configureNetwork(ctx context.Context) error {
	netns, err := os.Open(s.cfg.NetNS)
	if err != nil {
		return fmt.Errorf("open network namespace: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	defer netns.Close()

	var args networkArgs
	var sockets []*os.File
	defer func() {
		for _, f := range sockets {
			f.Close()
		}
	}()
	err = inNetNS(netns, func() error {
		var err error
		if args, err = scrapeNetwork(); err != nil {
			return err
		}
		for i := range args.FDBasedLinks {
			f, err := packetSocket(&args.FDBasedLinks[i])
			if err != nil {
				return err
			}
			sockets = append(sockets, f)
		}
		return s.engine.silenceHost(args.FDBasedLinks)
	})
	if err != nil {
		return fmt.Errorf("read network of pod: %w", err)
	}
	if err := s.engine.onHost(func() error { return cutForSandbox(netns, args.FDBasedLinks) }); err != nil {
		s.engine.log.Warn("Datagrams that a sender has joined do not reach a pod", "sandbox", s.cfg.ID, "error", err)
	}
	if err := writeInterfaces(s.cfg.Dir, args); err != nil {
		return err
	}
	return s.control.call(ctx, methodSetNetwork, args, nil, sockets...)
}

// scrapeTries is how often a namespace is read that changes meanwhile, as one does
// when the check of a new IPv6 address for duplicates ends.
const scrapeTries = 10

// scrapeNetwork describes the network namespace of the calling thread. Links
// that are down or have no address are left out.
func scrapeNetwork() (args networkArgs, err error) {
	for range scrapeTries {
		if args, err = scrapeOnce(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return args, err
}

func scrapeOnce() (networkArgs, error) {
	var args networkArgs
	links, err := netlink.LinkList()
	if err != nil {
		return args, fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return args, fmt.Errorf("list addresses of %s: %w", attrs.Name, err)
		}
		prefixes := prefixesOf(addrs)
		if attrs.Flags&net.FlagLoopback != 0 {
			args.LoopbackLinks = append(args.LoopbackLinks, loopback(attrs.Name, prefixes))
			continue
		}
		if len(prefixes) == 0 {
			continue
		}
		if err := args.addLink(link, prefixes); err != nil {
			return args, err
		}
	}
	return args, nil
}

func prefixesOf(addrs []netlink.Addr) []ipPrefix {
	var out []ipPrefix
	for _, a := range addrs {
		ones, _ := a.Mask.Size()
		out = append(out, ipPrefix{Address: a.IP, PrefixLen: ones})
	}
	return out
}

// loopback routes each of its networks to itself, as the kernel does in a table
// of its own that is not listed.
func loopback(name string, prefixes []ipPrefix) loopbackLink {
	l := loopbackLink{Name: name, Addresses: prefixes}
	for _, p := range prefixes {
		bits := 8 * net.IPv4len
		if p.Address.To4() == nil {
			bits = 8 * net.IPv6len
		}
		mask := net.CIDRMask(p.PrefixLen, bits)
		l.Routes = append(l.Routes, route{Destination: net.IPNet{IP: p.Address.Mask(mask), Mask: mask}})
	}
	return l
}

func (args *networkArgs) addLink(link netlink.Link, prefixes []ipPrefix) error {
	attrs := link.Attrs()
	l := packetLink{
		Name:              attrs.Name,
		InterfaceIndex:    attrs.Index,
		MTU:               attrs.MTU,
		Addresses:         prefixes,
		LinkAddress:       attrs.HardwareAddr,
		GSOMaxSize:        attrs.GSOMaxSize,
		RXChecksumOffload: true, // checked already, or never damaged: a veth carries it
		QDisc:             qdiscFIFO,
		NumChannels:       1,
	}
	if link.Type() == "veth" {
		l.peer = attrs.ParentIndex
	}
	neighbors, err := netlink.NeighList(attrs.Index, 0)
	if err != nil {
		return fmt.Errorf("list neighbors of %s: %w", attrs.Name, err)
	}
	for _, n := range neighbors {
		if n.State == netlink.NUD_PERMANENT { // others are found again
			l.Neighbors = append(l.Neighbors, neighbor{IP: n.IP, HardwareAddr: n.HardwareAddr})
		}
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", attrs.Name, err)
	}
	for _, r := range routes {
		if attrs.RawFlags&unix.IFF_NOARP != 0 {
			r.Gw = l.nextHopWithoutARP(r)
		}
		if err := args.addRoute(&l, r); err != nil {
			return err
		}
	}
	args.FDBasedLinks = append(args.FDBasedLinks, l)
	return nil
}

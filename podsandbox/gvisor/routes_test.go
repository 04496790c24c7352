package gvisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A default route needs no gateway: the interface reaches all addresses, by ARP and
// neighbor discovery, or without either, as ipvlan in layer 3 does.
func TestScrapeNetworkDefaultRouteWithoutGateway(t *testing.T) {
	const farIP, farIP6, podIP6 = "10.253.0.1", "fd00:2::1", "fd00:1::2"
	for name, noARP := range map[string]bool{"resolved": false, "not resolved": true} {
		t.Run(name, func(t *testing.T) {
			p := bootPod(t, newTestEngine(t))
			mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
			address := func(l netlink.Link, ip string) error {
				a, err := netlink.ParseAddr(ip)
				if err != nil {
					return err
				}
				a.Flags = unix.IFA_F_NODAD
				return netlink.AddrAdd(l, a)
			}
			if err := inNetNS(p.ns.host, func() error {
				l, err := netlink.LinkByName("veth0")
				if err != nil {
					return err
				}
				if noARP { // all interfaces of an ipvlan have one hardware address
					err = errors.Join(netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetARPOff(l))
				}
				_, pods, _ := net.ParseCIDR("fd00:1::/64")
				return errors.Join(err, address(l, farIP+"/32"), address(l, farIP6+"/128"),
					netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: pods}))
			}); err != nil {
				t.Fatal(err)
			}
			p.ns.inPod(t, func() error {
				l, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				_, all4, _ := net.ParseCIDR("0.0.0.0/0")
				_, all6, _ := net.ParseCIDR("::/0")
				index := l.Attrs().Index
				err = errors.Join(address(l, podIP6+"/64"),
					netlink.RouteDel(&netlink.Route{LinkIndex: index, Gw: net.ParseIP(hostIP)}),
					netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all4, Scope: netlink.SCOPE_LINK}),
					netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all6}))
				if noARP {
					err = errors.Join(err, netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetARPOff(l))
				}
				return err
			})
			if err := p.StartRoot(testContext(t)); err != nil {
				t.Fatal(err)
			}
			for _, ip := range []string{hostIP, farIP, farIP6} {
				var listener net.Listener
				if err := inNetNS(p.ns.host, func() (err error) {
					listener, err = net.Listen("tcp", net.JoinHostPort(ip, "7000"))
					return err
				}); err != nil {
					t.Fatal(err)
				}
				go func() {
					if conn, err := listener.Accept(); err == nil {
						fmt.Fprintln(conn, "from", ip)
						conn.Close()
					}
				}()
				out, _ := p.run(shell(newRootfs(t), "nc -w 5 "+ip+" 7000 < /dev/null"))
				if !strings.Contains(out, "from "+ip) {
					t.Errorf("%s: the pod read %q", ip, out)
				}
				listener.Close()
			}
		})
	}
}

// A gateway that a sandbox cannot take is refused, and not left out.
func TestScrapeNetworkGatewayOfAnotherFamily(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	_, dst, _ := net.ParseCIDR("10.9.0.0/16")
	ns.inPod(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: net.ParseIP("fe80::1")}})
		}
		if err != nil {
			return err
		}
		if args, err := scrapeNetwork(); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %+v, %v", args, err)
		}
		return nil
	})
}

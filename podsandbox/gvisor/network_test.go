package gvisor

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// dialPod connects from the test's end of the veth.
func (p *pod) dialPod(port string) (string, error) {
	var out string
	err := inNetNS(p.ns.host, func() error {
		conn, err := net.Dial("tcp", net.JoinHostPort(podIP, port))
		if err != nil {
			return err
		}
		defer conn.Close()
		b, err := io.ReadAll(conn)
		out = string(b)
		return err
	})
	return out, err
}

func TestNetworkBothWays(t *testing.T) {
	p := startPod(t)
	var listener net.Listener
	if err := inNetNS(p.ns.host, func() error {
		var err error
		listener, err = net.Listen("tcp", hostIP+":7000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "from the host")
			conn.Close()
		}
	}()
	c := p.start(shell(newRootfs(t), "nc "+hostIP+" 7000 < /dev/null; echo ready; while :; do echo from the pod | nc -l -p 8000; done"))
	c.waitFor(t, "ready")
	if !strings.Contains(c.String(), "from the host") {
		t.Errorf("pod read %q", c.String())
	}
	// A hundred times: were the host's stack not deaf, it would now and then
	// refuse a connection before the sandbox has accepted it.
	for range 100 {
		eventually(t, func() error { // the server listens anew for each
			out, err := p.dialPod("8000")
			if err == nil && out != "from the pod\n" {
				err = fmt.Errorf("host read %q", out)
			}
			return err
		})
	}
	if _, err := p.dialPod("9999"); err == nil {
		t.Error("a port without a listener accepts")
	}
}

// The addresses stay where CNI has put them, so that CHECK and DEL find them.
func TestNetworkKeepsAddresses(t *testing.T) {
	p := startPod(t)
	f, err := os.Open(p.cfg.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := inNetNS(f, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil || len(addrs) != 1 || addrs[0].IP.String() != podIP {
			t.Errorf("addresses %v, %v", addrs, err)
		}
		routes, err := netlink.RouteList(l, netlink.FAMILY_V4)
		if err != nil || len(routes) != 2 {
			t.Errorf("routes %v, %v", routes, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Where the kernel lacks the hook, addresses are removed; the sandbox has what
// was read before.
func TestRemoveAddresses(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	f, err := os.Open(ns.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := inNetNS(f, func() error {
		args, err := scrapeNetwork()
		if err != nil {
			return err
		}
		for _, l := range args.FDBasedLinks {
			for range 2 { // a second time is no error
				if err := removeAddresses(l); err != nil {
					return err
				}
			}
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err == nil && len(addrs) != 0 {
			t.Errorf("addresses are left: %v", addrs)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestScrapeNetwork(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	f, err := os.Open(ns.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var args networkArgs
	if err := inNetNS(f, func() error { args, err = scrapeNetwork(); return err }); err != nil {
		t.Fatal(err)
	}
	if len(args.LoopbackLinks) != 1 || len(args.FDBasedLinks) != 1 {
		t.Fatalf("links %+v", args)
	}
	l := args.FDBasedLinks[0]
	if l.Name != "eth0" || l.MTU != 1500 || len(l.LinkAddress) != 6 || l.Addresses[0].Address.String() != podIP || l.Addresses[0].PrefixLen != 24 {
		t.Errorf("link %+v", l)
	}
	if g := args.Defaultv4Gateway; g.Name != "eth0" || g.Route.Gateway.String() != hostIP || len(g.Route.Destination.IP) != 4 {
		t.Errorf("default route %+v", g)
	}
}

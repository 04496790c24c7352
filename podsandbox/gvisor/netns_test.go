package gvisor

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// testNetNS is a network namespace with one veth; its other end is in the
// test's own namespace, which is a fresh one, too, so that nothing of the host
// is touched.
type testNetNS struct {
	path string // of the pod's
	host *os.File
}

const podIP, hostIP = "10.251.0.2", "10.251.0.1"

func newTestNetNS(t testing.TB) *testNetNS {
	t.Helper()
	host, err := newEmptyNetNS()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := newEmptyNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close(); pod.Close() })
	podFD, _ := rawFD(pod)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	configure := func(name, ip, gw string) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr(ip + "/24")
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		if gw == "" {
			return nil
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gw)})
	}
	must(inNetNS(host, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(podFD)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return configure("veth0", hostIP, "")
	}))
	must(inNetNS(pod, func() error { return configure("eth0", podIP, hostIP) }))
	return &testNetNS{path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), podFD), host: host}
}

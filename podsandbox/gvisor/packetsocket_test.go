package gvisor

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ethtoolSet turns an offload of an interface of the calling thread's network
// namespace on or off; cmd is one of ETHTOOL_SGSO and its like.
func ethtoolSet(name string, cmd uint32, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd: cmd}
	if on {
		value.data = 1
	}
	return ethtool(fd, name, unsafe.Pointer(&value))
}

// inPod runs f in the network namespace of the pod.
func (ns *testNetNS) inPod(t testing.TB, f func() error) {
	t.Helper()
	pod, err := os.Open(ns.path)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := inNetNS(pod, f); err != nil {
		t.Fatal(err)
	}
}

// capture is what passes an interface, seen by a socket that a test reads later.
type capture struct{ fd int }

func startCapture(t testing.TB, ns *os.File, name string) *capture {
	t.Helper()
	c := &capture{}
	if err := inNetNS(ns, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
			return err
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8, Ifindex: l.Attrs().Index})
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// each calls f for each frame so far, with the address of who sent it.
func (c *capture) each(t testing.TB, f func(frame []byte, source net.IP)) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(c.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if n < 14+40 {
			continue
		}
		switch frame := buf[:n]; binary.BigEndian.Uint16(frame[12:]) {
		case unix.ETH_P_IP:
			f(frame, net.IP(frame[26:30]))
		case unix.ETH_P_IPV6:
			f(frame, net.IP(frame[22:38]))
		}
	}
}

// longest is the longest frame of a source, without its Ethernet header.
func (c *capture) longest(t testing.TB, source string) int {
	longest := 0
	c.each(t, func(frame []byte, from net.IP) {
		if from.String() == source {
			longest = max(longest, len(frame)-14)
		}
	})
	return longest
}

// checksum is that of RFC 1071; 0 over data which includes a right one.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			w := uint32(p[i]) << 8
			if i+1 < len(p) {
				w |= uint32(p[i+1])
			}
			sum += w
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// isRight checks the sums of a TCP or UDP packet over IPv4, as the next node would.
func isRight(frame []byte) error {
	ip := frame[14:]
	header, total, protocol := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:])), ip[9]
	if checksum(ip[:header]) != 0 {
		return errors.New("checksum of IP")
	}
	segment := ip[header:total]
	switch protocol {
	case unix.IPPROTO_UDP:
		if segment[6] == 0 && segment[7] == 0 {
			return errors.New("no checksum of UDP")
		}
	case unix.IPPROTO_TCP:
	default:
		return nil
	}
	pseudo := append(append([]byte{}, ip[12:20]...), 0, protocol, byte(len(segment)>>8), byte(len(segment)))
	if checksum(pseudo, segment) != 0 {
		return fmt.Errorf("checksum of protocol %d", protocol)
	}
	return nil
}

// packetOption reads an option of the sandbox's packet socket.
func (p *pod) packetOption(option int) int {
	p.t.Helper()
	pidfd, err := unix.PidfdOpen(p.sentry.proc.pid, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.sentry.proc.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		n, _ := strconv.Atoi(e.Name())
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			continue
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err == nil && domain == unix.AF_PACKET {
			value, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, option)
			unix.Close(fd)
			if err != nil {
				p.t.Fatal(err)
			}
			return value
		}
		unix.Close(fd)
	}
	p.t.Fatal("the sandbox has no packet socket")
	return 0
}

// transferSize is enough that a window is open for the largest segments.
const transferSize = 8 << 20

// transferBothWays sends random bytes from the pod to a listener in a network
// namespace at ip, and back, and compares what arrives.
func (p *pod) transferBothWays(ns *os.File, ip string) {
	p.t.Helper()
	data := make([]byte, transferSize)
	_, _ = rand.Read(data)
	root := newRootfs(p.t)
	if err := os.WriteFile(filepath.Join(root, "data"), data, 0o644); err != nil {
		p.t.Fatal(err)
	}
	var listener net.Listener
	if err := inNetNS(ns, func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(ip, "7000"))
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan []byte, 1)
	go func() { // what comes first goes back on the second connection
		var b []byte
		for i := range 2 {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			if i == 0 {
				b, _ = io.ReadAll(conn)
			} else {
				_, _ = conn.Write(data)
			}
			conn.Close()
		}
		got <- b
	}()
	out, code := p.run(shell(root, "nc "+ip+" 7000 < /data && nc "+ip+" 7000 < /dev/null | sha256sum"))
	listener.Close()
	if sent := <-got; code != 0 || !bytes.Equal(sent, data) {
		p.t.Errorf("of %d bytes of the pod %d arrived, equal: %v; exit code %d: %s", len(data), len(sent), bytes.Equal(sent, data), code, out)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); !strings.HasPrefix(out, want) {
		p.t.Errorf("the pod has read something else: %q", out)
	}
}

// Large segments go to the host in one piece where the interface takes them, and as
// packets where it does not. Either way the bytes arrive.
func TestSegmentation(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(eth0 netlink.Link) error // in the pod's network namespace
		host    bool                          // the host's kernel cuts and sums
		large   bool                          // and only on the other side of the interface
	}{
		{"veth", func(netlink.Link) error { return nil }, true, true},
		{"large MTU", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 9000) }, true, true},
		{"no checksums in hardware", func(l netlink.Link) error { return ethtoolSet(l.Attrs().Name, unix.ETHTOOL_STXCSUM, false) }, true, false},
		{"no GSO", func(l netlink.Link) error { return ethtoolSet(l.Attrs().Name, unix.ETHTOOL_SGSO, false) }, false, false},
		{"tiny GSO", func(l netlink.Link) error { return netlink.LinkSetGSOMaxSize(l, 2000) }, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := bootPod(t, newTestEngine(t))
			mtu := 0
			p.ns.inPod(t, func() error {
				l, err := netlink.LinkByName("eth0")
				if err == nil {
					err = test.prepare(l)
				}
				if err == nil {
					l, err = netlink.LinkByName("eth0")
				}
				if err == nil {
					mtu = l.Attrs().MTU
				}
				return err
			})
			if err := p.StartRoot(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if on := p.packetOption(unix.PACKET_VNET_HDR) == 1; on != test.host {
				t.Errorf("PACKET_VNET_HDR is %v", on)
			}
			c := startCapture(t, p.ns.host, "veth0")
			p.transferBothWays(p.ns.host, hostIP)
			if got := c.longest(t, podIP); got > mtu != test.large {
				t.Errorf("the longest packet of the pod has %d bytes, the MTU is %d", got, mtu)
			}
		})
	}
}

func TestSegmentationOfIPv6(t *testing.T) {
	const podIP6, hostIP6 = "fd00:1::2", "fd00:1::1"
	p := bootPod(t, newTestEngine(t))
	add := func(name, ip string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, _ := netlink.ParseAddr(ip + "/64")
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	}
	p.ns.inPod(t, func() error { return add("eth0", podIP6) })
	if err := inNetNS(p.ns.host, func() error { return add("veth0", hostIP6) }); err != nil {
		t.Fatal(err)
	}
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	out, in := startCapture(t, p.ns.host, "veth0"), startCapture(t, p.ns.host, "veth0")
	p.transferBothWays(p.ns.host, hostIP6)
	if got, back := out.longest(t, podIP6), in.longest(t, hostIP6); got <= 1500 || back <= 1500 {
		t.Errorf("the longest packets have %d bytes out of the pod and %d into it", got, back)
	}
}

// A socket or an interface that takes no header leaves all to the Sentry.
func TestSegmentationWithoutHeader(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	_, packet := ns.podSocket(t)
	for name, test := range map[string]struct {
		domain int
		change func(*packetLink)
		host   bool
	}{
		"as it is":            {unix.AF_PACKET, func(*packetLink) {}, true},
		"option refused":      {unix.AF_INET, func(*packetLink) {}, false},
		"no Ethernet header":  {unix.AF_PACKET, func(l *packetLink) { l.LinkAddress = nil }, false},
		"limit not known":     {unix.AF_PACKET, func(l *packetLink) { l.GSOMaxSize = 0 }, false},
		"no such interface":   {unix.AF_PACKET, func(l *packetLink) { l.Name = "none" }, false},
		"more than IP's most": {unix.AF_PACKET, func(l *packetLink) { l.GSOMaxSize = 512 << 10 }, true},
	} {
		l := packet
		test.change(&l)
		ns.inPod(t, func() error {
			fd, err := unix.Socket(test.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			l.chooseGSO(fd)
			return nil
		})
		if l.GVisorGSOEnabled == test.host || l.GSOMaxSize != maxGSOSize {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// What leaves the node is packets of its MTU with right checksums, as another node
// sees them, also where addresses are translated on the way and no hardware helps.
func TestSegmentationOnTheWire(t *testing.T) {
	const nodeIP, gatewayIP, mtu = "10.252.0.2", "10.252.0.1", 1400
	p := startPod(t)
	node, err := newEmptyNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	nodeFD, _ := rawFD(node)
	up := func(name, ip string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr(ip + "/24")
		return errors.Join(netlink.AddrAdd(l, addr), netlink.LinkSetMTU(l, mtu), netlink.LinkSetUp(l))
	}
	if err := inNetNS(p.ns.host, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(nodeFD)}
		return errors.Join(netlink.LinkAdd(veth), up("uplink", gatewayIP),
			ethtoolSet("uplink", unix.ETHTOOL_STSO, false), ethtoolSet("uplink", unix.ETHTOOL_SGSO, false), ethtoolSet("uplink", unix.ETHTOOL_STXCSUM, false),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0), masquerade("uplink"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := inNetNS(node, func() error { return up("eth0", nodeIP) }); err != nil {
		t.Fatal(err)
	}
	c := startCapture(t, node, "eth0")
	p.transferBothWays(node, nodeIP)
	p.run(shell(newRootfs(t), "timeout 1 nslookup name "+nodeIP))
	packets, datagrams := 0, 0
	c.each(t, func(frame []byte, source net.IP) {
		if source.String() != gatewayIP {
			return
		}
		packets++
		if frame[14+9] == unix.IPPROTO_UDP {
			datagrams++
		}
		if err := isRight(frame); err != nil {
			t.Errorf("packet %d of %d bytes: %v", packets, len(frame), err)
		}
		if len(frame)-14 > mtu {
			t.Errorf("packet %d has %d bytes", packets, len(frame)-14)
		}
	})
	if packets < transferSize/mtu || datagrams == 0 {
		t.Errorf("the node has seen %d packets of the pod, %d of them UDP", packets, datagrams)
	}
}

// masquerade gives what leaves by an interface of the calling thread's network
// namespace the address of that.
func masquerade(name string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
	chain := conn.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)},
		&expr.Masq{},
	}})
	return conn.Flush()
}

package gvisor

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sendJoined has the kernel send ten datagrams of a hundred bytes, and one of fifty, from the
// host's namespace to the pod's address.
func (ns *testNetNS) sendJoined(t testing.TB) {
	t.Helper()
	if err := inNetNS(ns.host, func() error {
		conn, err := net.ListenPacket("udp", hostIP+":0")
		if err != nil {
			return err
		}
		defer conn.Close()
		fd, err := rawFDOf(conn.(*net.UDPConn))
		if err != nil {
			return err
		}
		to := &net.UDPAddr{IP: net.ParseIP(podIP), Port: 9000}
		if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 100); err != nil {
			return err
		}
		if _, err := conn.WriteTo(make([]byte, 1000), to); err != nil {
			return err
		}
		_, err = conn.WriteTo(make([]byte, 50), to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func rawFDOf(conn *net.UDPConn) (int, error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = rc.Control(func(p uintptr) { fd = int(p) })
	return fd, err
}

// datagrams reads the sizes of the payloads of UDP from a packet socket with headers of
// so many bytes in front of its packets, up to the one of fifty bytes.
func datagrams(t testing.TB, f *os.File, header int) []int {
	t.Helper()
	var out []int
	buf := make([]byte, 1<<17)
	fd, err := rawFD(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("after datagrams of %v: %v", out, err)
		}
		frame := buf[header:n]
		if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[14+9] != unix.IPPROTO_UDP {
			continue
		}
		out = append(out, len(frame)-42)
		if out[len(out)-1] == 50 {
			return out
		}
	}
}

const vnetHeader = 10 // bytes of struct virtio_net_hdr

// podSocket opens the packet socket of eth0 as a sandbox has it.
func (ns *testNetNS) podSocket(t testing.TB) (*os.File, packetLink) {
	t.Helper()
	var f *os.File
	var l packetLink
	ns.inPod(t, func() error {
		args, err := scrapeNetwork()
		if err != nil {
			return err
		}
		l = args.FDBasedLinks[0]
		f, err = packetSocket(&l)
		return err
	})
	t.Cleanup(func() { f.Close() })
	if l.GVisorGSOEnabled {
		t.Fatal("the socket has no header")
	}
	return f, l
}

// What a sender has joined is not one datagram. Where nobody cuts it before, it does
// not reach a socket that has no words for it.
func TestGSOFilterDropsJoinedDatagrams(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	f, _ := ns.podSocket(t)
	ns.sendJoined(t)
	if got := datagrams(t, f, vnetHeader); !slices.Equal(got, []int{50}) {
		t.Errorf("datagrams of %v bytes reach the sandbox", got)
	}
}

// The other end of a veth cuts it.
func TestCutForSandboxCutsJoinedDatagrams(t *testing.T) {
	e := newTestEngine(t)
	p := bootPod(t, e)
	e.hostNetNS = p.ns.host
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	f, _ := p.ns.podSocket(t)
	p.ns.sendJoined(t)
	want := append(slices.Repeat([]int{100}, 10), 50)
	if got := datagrams(t, f, vnetHeader); !slices.Equal(got, want) {
		t.Errorf("datagrams of %v bytes reach the sandbox", got)
	}
	// TCP is not cut.
	c := startCapture(t, p.ns.host, "veth0")
	p.transferBothWays(p.ns.host, hostIP)
	if got := c.longest(t, hostIP); got <= 1500 {
		t.Errorf("the longest packet of the host has %d bytes", got)
	}
}

// A number means something else in another namespace: only what points back is the
// other end.
func TestPeerOf(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ns := newTestNetNS(t)
	_, l := ns.podSocket(t)
	pod, err := os.Open(ns.path)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	fd, _ := rawFD(pod)
	if err := inNetNS(ns.host, func() error {
		id, err := netlink.GetNetNsIdByFd(fd)
		if err != nil {
			return err
		}
		for name, test := range map[string]struct {
			pod, peer, index int
			found            bool
		}{
			"it":              {id, l.peer, l.InterfaceIndex, true},
			"of another pod":  {id + 1, l.peer, l.InterfaceIndex, false},
			"of no pod":       {-1, l.peer, l.InterfaceIndex, false},
			"of another link": {id, l.peer, l.InterfaceIndex + 1, false},
			"loopback":        {id, 1, 0, false},
			"nothing there":   {id, 1000, l.InterfaceIndex, false},
			"not of a veth":   {id, 0, l.InterfaceIndex, false},
		} {
			got, err := peerOf(packetLink{peer: test.peer, InterfaceIndex: test.index}, test.pod)
			if err != nil || (got != nil) != test.found {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestJoinsPackets(t *testing.T) {
	for feature, want := range map[string]bool{
		"tx-udp-segmentation": true, "tx-sctp-segmentation": true, "tx-esp-segmentation": true, "tx-gso-list": true,
		"tx-udp_tnl-csum-segmentation": true, "tx-gre-segmentation": true, "tx-ipxip4-segmentation": true,
		"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-tcp-ecn-segmentation": false,
		"tx-checksum-ip-generic": false, "tx-generic-segmentation": false, "rx-gro": false, "tx-scatter-gather": false,
	} {
		if got := joinsPackets(feature); got != want {
			t.Errorf("%s: %v", feature, got)
		}
	}
}

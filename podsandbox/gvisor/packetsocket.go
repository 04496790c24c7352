package gvisor

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetBuffer is the size asked for the buffers of a packet socket, in bytes.
// The kernel's default loses packets at the rates a veth reaches.
const packetBuffer = 4 << 20

// maxGSOSize is the largest segment that the Sentry makes, in bytes with headers: an
// IP packet has no larger length, and its own segmentation takes no more.
const maxGSOSize = 1 << 16

// packetSocket opens the socket through which the sandbox uses an interface of the
// calling thread's network namespace, and notes in the link who cuts the sandbox's
// large TCP segments into packets.
func packetSocket(l *packetLink) (*os.File, error) {
	const allProtocols = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	// Protocol 0 until it is bound, so that it sees no other interface's packets.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packet socket of "+l.Name)
	// Before it is bound: a packet that came with no header in front of it would be
	// read as if it had one.
	l.chooseGSO(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: l.InterfaceIndex}); err != nil {
		f.Close()
		return nil, fmt.Errorf("bind packet socket to %s: %w", l.Name, err)
	}
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, packetBuffer); err != nil {
			// Without CAP_NET_ADMIN in the initial user namespace: as much as is
			// allowed.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, packetBuffer)
		}
	}
	return f, nil
}

// chooseGSO has the host's kernel cut large TCP segments into packets, and only
// where a packet leaves the host, and complete their checksums: with a header in
// front of each packet (PACKET_VNET_HDR) that says how. Where the interface or its
// socket does not take those, or not the filter that they need, the Sentry cuts and sums, which is several times slower
// but the same on the wire.
//
// It is told of TCP alone. The link's TXChecksumOffload would leave checksums of UDP
// and ICMP empty, too, without a header that says so, and other nodes drop them.
func (l *packetLink) chooseGSO(fd int) {
	l.GSOMaxSize = min(l.GSOMaxSize, maxGSOSize)
	if l.takesGSO(fd) && attachGSOFilter(fd) == nil && unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil {
		return
	}
	l.GSOMaxSize, l.GVisorGSOEnabled = maxGSOSize, true
}

// minGSOSize is what a segment must be able to hold beyond a packet for it to be
// worth a header. The Sentry subtracts the most that headers of TCP can take, and
// takes a negative rest for a very large size.
const minGSOSize = 1 << 10

func (l *packetLink) takesGSO(fd int) bool {
	// The Sentry says where the checksum is by the length of an Ethernet header.
	if len(l.LinkAddress) == 0 {
		return false
	}
	if int64(l.GSOMaxSize) < int64(l.MTU)+minGSOSize {
		return false
	}
	on, err := ethtoolGSO(fd, l.Name)
	return err == nil && on
}

// ethtoolGSO tells whether generic segmentation offload is on at an interface, as
// `ethtool -k` shows it.
func ethtoolGSO(fd int, name string) (bool, error) {
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GGSO}
	err := ethtool(fd, name, unsafe.Pointer(&value))
	return value.data != 0, err
}

// ethtool makes a request, which begins with its number, of an interface of the
// socket's network namespace.
func ethtool(fd int, name string, request unsafe.Pointer) error {
	ifreq := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of its union
	}{data: request}
	copy(ifreq.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq))); errno != 0 {
		return fmt.Errorf("ask interface %s: %w", name, errno)
	}
	return nil
}

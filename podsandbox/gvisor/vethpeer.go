package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A veth hands packets on before they are cut, and a sandbox takes those of UDP that
// a sender has joined (UDP_SEGMENT, as QUIC uses) for one datagram. The host's end has
// the kernel cut all but TCP when its features say that it cannot take them.

// cutForSandbox does so at the other ends of the links, as far as they are veths in the
// calling thread's network namespace, where CNI leaves them. pod is the namespace
// of the links. Elsewhere such packets are dropped; see gsofilter.go.
func cutForSandbox(pod *os.File, links []packetLink) error {
	var id int
	err := control(pod, func(fd int) (err error) {
		id, err = netlink.GetNetNsIdByFd(fd)
		return err
	})
	if err != nil {
		return fmt.Errorf("find network namespace of pod: %w", err)
	}
	for _, l := range links {
		peer, err := peerOf(l, id)
		if err != nil {
			return err
		}
		if peer == nil {
			continue
		}
		if err := cutAllButTCP(peer.Attrs().Name); err != nil {
			return fmt.Errorf("set features of %s, the other end of %s: %w", peer.Attrs().Name, l.Name, err)
		}
	}
	return nil
}

// peerOf finds the other end of a veth; nil if it is none or not here. pod is the
// number of the pod's namespace.
func peerOf(l packetLink, pod int) (netlink.Link, error) {
	if l.peer == 0 || pod < 0 {
		return nil, nil
	}
	peer, err := netlink.LinkByIndex(l.peer)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the other end of %s: %w", l.Name, err)
	}
	// A number means another interface in another namespace: it must point back.
	if a := peer.Attrs(); a.NetNsID != pod || a.ParentIndex != l.InterfaceIndex {
		return nil, nil
	}
	return peer, nil
}

// joinsPackets reports whether a feature of an interface is to take packets that are
// still to be cut, of anything but TCP.
func joinsPackets(feature string) bool {
	if !strings.HasPrefix(feature, "tx-") || strings.HasPrefix(feature, "tx-tcp") || feature == "tx-generic-segmentation" {
		return false
	}
	return strings.HasSuffix(feature, "segmentation") || feature == "tx-gso-list" || feature == "tx-gso-partial"
}

const (
	stringSetFeatures = 4 // ETH_SS_FEATURES
	maxFeatures       = 256
	featureNameSize   = 32 // ETH_GSTRING_LEN
	featureBlockBits  = 32
)

// cutAllButTCP turns the features off.
func cutAllButTCP(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	features, err := featureNames(fd, name)
	if err != nil {
		return err
	}
	var request struct { // ethtool_sfeatures
		cmd, size uint32
		blocks    [maxFeatures / featureBlockBits]struct{ valid, requested uint32 }
	}
	request.cmd, request.size = unix.ETHTOOL_SFEATURES, uint32((len(features)+featureBlockBits-1)/featureBlockBits)
	for i, f := range features {
		if joinsPackets(f) {
			request.blocks[i/featureBlockBits].valid |= 1 << (i % featureBlockBits)
		}
	}
	return ethtool(fd, name, unsafe.Pointer(&request))
}

// featureNames lists what ETHTOOL_SFEATURES has a bit for.
func featureNames(fd int, name string) ([]string, error) {
	var count struct { // ethtool_sset_info
		cmd, _ uint32
		mask   uint64
		n      uint32
	}
	count.cmd, count.mask = unix.ETHTOOL_GSSET_INFO, 1<<stringSetFeatures
	if err := ethtool(fd, name, unsafe.Pointer(&count)); err != nil {
		return nil, err
	}
	if count.n > maxFeatures {
		return nil, fmt.Errorf("%d features: %w", count.n, errdefs.ErrNotImplemented)
	}
	var list struct { // ethtool_gstrings
		cmd, set, n uint32
		names       [maxFeatures][featureNameSize]byte
	}
	list.cmd, list.set, list.n = unix.ETHTOOL_GSTRINGS, stringSetFeatures, count.n
	if err := ethtool(fd, name, unsafe.Pointer(&list)); err != nil {
		return nil, err
	}
	var out []string
	for _, n := range list.names[:min(list.n, count.n)] {
		b, _, _ := bytes.Cut(n[:], []byte{0})
		out = append(out, string(b))
	}
	return out, nil
}

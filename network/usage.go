package network

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// InterfaceUsage is what passed one interface since it was made.
type InterfaceUsage struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Usage reads the counters of all interfaces of a pinned namespace but the
// loopback: what the kernel counts there is what the sandbox sent and received,
// since its packet sockets sit on these interfaces.
func Usage(path string) ([]InterfaceUsage, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in network namespace: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []InterfaceUsage
	for _, l := range links {
		a := l.Attrs()
		if a.Statistics == nil || a.EncapType == "loopback" {
			continue
		}
		out = append(out, InterfaceUsage{
			Name:    a.Name,
			RxBytes: a.Statistics.RxBytes, RxPackets: a.Statistics.RxPackets,
			RxErrors: a.Statistics.RxErrors, RxDropped: a.Statistics.RxDropped,
			TxBytes: a.Statistics.TxBytes, TxPackets: a.Statistics.TxPackets,
			TxErrors: a.Statistics.TxErrors, TxDropped: a.Statistics.TxDropped,
		})
	}
	return out, nil
}

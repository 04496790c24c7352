package gvisor

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// dropTable is the nftables table, in the pod's network namespace, that keeps the
// host's stack from hearing what is meant for the sandbox.
const dropTable = "cri-sandbox"

// silenceHost makes the host's stack in the calling thread's network namespace deaf on
// the links. Both stacks have the pod's addresses, and without this the host's
// would answer, too: it refuses connections that the sandbox accepts.
//
// It drops at the netdev ingress hook: packet sockets are served before that
// hook, the host's IP stack after it. The addresses stay on the link, so CNI's
// CHECK finds what it expects, and DEL removes the rules it made for them, with
// nothing to save or to restore. Where the kernel lacks the hook, the addresses
// are taken off the link; then CHECK fails, and DEL may leave rules behind.
func (e *Engine) silenceHost(links []packetLink) error {
	if len(links) == 0 {
		return nil
	}
	err := dropIngress(links)
	if err == nil {
		return nil
	}
	if !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOENT) &&
		!errors.Is(err, syscall.EPROTONOSUPPORT) && !errors.Is(err, syscall.EAFNOSUPPORT) {
		return fmt.Errorf("silence host stack: %w", err)
	}
	e.noHookOnce.Do(func() {
		e.log.Warn("kernel has no nftables netdev hook (CONFIG_NF_TABLES_NETDEV): addresses are taken off the pods' links instead; CNI CHECK will fail", "error", err)
	})
	for _, l := range links {
		if err := removeAddresses(l); err != nil {
			return fmt.Errorf("silence host stack: %w", err)
		}
	}
	return nil
}

func dropIngress(links []packetLink) error {
	conn, err := nftables.New() // in the thread's network namespace
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: dropTable})
	drop := nftables.ChainPolicyDrop
	for _, l := range links {
		conn.AddChain(&nftables.Chain{
			Name: "deaf-" + l.Name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
			Device: l.Name, Policy: &drop,
		})
	}
	return conn.Flush()
}

func removeAddresses(l packetLink) error {
	link, err := netlink.LinkByIndex(l.InterfaceIndex)
	if err != nil {
		return fmt.Errorf("find link %s: %w", l.Name, err)
	}
	for _, a := range l.Addresses {
		bits := 8 * len(a.Address)
		if v4 := a.Address.To4(); v4 != nil {
			bits = 8 * net.IPv4len
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Address, Mask: net.CIDRMask(a.PrefixLen, bits)}}
		if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from %s: %w", a.Address, l.Name, err)
		}
	}
	return nil
}

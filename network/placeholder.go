package network

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// delNamespace is the namespace that DEL is told. The path of a namespace without
// a pin is that of an open file of this process.
type delNamespace struct {
	path string
	file *os.File
}

func (n delNamespace) close() {
	if n.file != nil {
		n.file.Close()
	}
}

// namespaceForDel returns the pod's namespace if the interface is still in it.
//
// Else, a placeholder: a namespace that holds nothing but an interface of that name
// with the addresses of ADD's result. The common plugins (bridge, ptp) read the
// addresses whose masquerading they undo off the interface, and leave the rules
// behind, without an error, if it is gone; which it is when the pod's namespace
// was lost, and when an earlier DEL was cut off half-way.
//
// Where no result is known either, the pod's namespace, or none, which CNI allows.
func (c *CNI) namespaceForDel(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (delNamespace, error) {
	own := delNamespace{path: rt.NetNS}
	if !namespaceExists(rt.NetNS) {
		own.path = ""
	}
	if own.path != "" {
		there, addrs, err := lookUpInterface(own.path, rt.IfName)
		if err == nil && there && len(addrs) > 0 && c.records.loadResult(rt.ContainerID) == nil {
			err = c.records.saveAddresses(rt.ContainerID, addrs)
		}
		if err != nil || there {
			return own, err
		}
	}
	ips := c.savedIPs(list, rt)
	if len(ips) == 0 {
		return own, nil
	}
	return newPlaceholder(rt.IfName, ips)
}

// savedIPs returns the pod's addresses by our copy of the result, else by
// libcni's, else as an earlier DEL found them. A result that cannot be read is as good as none.
func (c *CNI) savedIPs(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) []*current.IPConfig {
	var res types.Result
	if raw := c.records.loadResult(rt.ContainerID); raw != nil {
		res, _ = create.CreateFromBytes(raw)
	}
	if res == nil {
		res, _ = c.cni.GetNetworkListCachedResult(list, rt)
	}
	if res == nil {
		return c.records.loadAddresses(rt.ContainerID)
	}
	ips, err := podIPs(res, rt.IfName)
	if err != nil {
		return nil
	}
	return ips
}

// lookUpInterface looks into a namespace through a socket that was opened in it.
func lookUpInterface(path, name string) (there bool, addrs []*net.IPNet, _ error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return false, nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return false, nil, fmt.Errorf("look into network namespace %s: %w", path, err)
	}
	defer handle.Close()
	var absent netlink.LinkNotFoundError
	link, err := handle.LinkByName(name)
	if errors.As(err, &absent) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	list, err := handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return true, nil, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range list {
		if a.Scope == unix.RT_SCOPE_UNIVERSE {
			addrs = append(addrs, a.IPNet)
		}
	}
	return true, addrs, nil
}

// newPlaceholder makes the namespace. It ends when the file is closed.
func newPlaceholder(ifName string, ips []*current.IPConfig) (delNamespace, error) {
	var file *os.File
	err := inNewNamespace(func() error {
		// A pair, since these plugins need that kind anyway; the other kinds
		// may be missing in the kernel.
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ifName}, PeerName: "peer"}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("add interface %s: %w", ifName, err)
		}
		for _, ip := range ips {
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &ip.Address}); err != nil {
				return fmt.Errorf("add address %s: %w", ip.Address.IP, err)
			}
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return delNamespace{}, fmt.Errorf("make a placeholder for the lost network namespace: %w", err)
	}
	return delNamespace{path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), file: file}, nil
}

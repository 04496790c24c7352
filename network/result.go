package network

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// resultOf reads the addresses of an interface out of a CNI result of any
// version. A result without one is an error: a pod needs an address.
func resultOf(res types.Result, ifName string) (Result, error) {
	ips, err := podIPs(res, ifName)
	if err != nil {
		return Result{}, err
	}
	if len(ips) == 0 {
		return Result{}, fmt.Errorf("CNI result has no address for %s; does the configuration name an ipam plugin?: %w", ifName, errdefs.ErrFailedPrecondition)
	}
	var out Result
	for _, ip := range ips {
		out.IPs = append(out.IPs, ip.Address.IP.String())
	}
	return out, nil
}

// podIPs returns the addresses inside the pod, in the order of the result.
func podIPs(res types.Result, ifName string) ([]*current.IPConfig, error) {
	r, err := current.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("read CNI result: %w", err)
	}
	var ips []*current.IPConfig
	for _, ip := range r.IPs {
		if ip == nil || ip.Address.IP == nil {
			continue
		}
		// Old versions do not say to which interface an address belongs.
		if i := ip.Interface; i != nil {
			if *i < 0 || *i >= len(r.Interfaces) || r.Interfaces[*i] == nil {
				return nil, fmt.Errorf("CNI result gives %s to interface %d of %d: %w", ip.Address.IP, *i, len(r.Interfaces), errdefs.ErrInternal)
			}
			if on := r.Interfaces[*i]; on.Sandbox == "" || on.Name != ifName {
				continue
			}
		}
		ips = append(ips, ip)
	}
	return ips, nil
}

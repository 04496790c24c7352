package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	current "github.com/containernetworking/cni/pkg/types/100"
)

// An ADD that was cut off has told no result, and the first plugin of its DEL may
// take the interface away and be cut off as well. What it had not undone by then
// (bridge: masquerading) is found by addresses that nobody knows any more. So they
// are noted before a DEL that has no result to go by.

func (s attachments) addressesPath(id string) string { return s.path(id) + ".addresses" }

func (s attachments) saveAddresses(id string, ips []*net.IPNet) error {
	var list []string
	for _, ip := range ips {
		list = append(list, ip.String())
	}
	raw, err := json.Marshal(list)
	if err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(s.addressesPath(id), raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save addresses of attachment %s: %w", id, err)
	}
	return nil
}

// loadAddresses returns nil where none are noted. A note that a crash cut short is
// none: the DEL had not begun.
func (s attachments) loadAddresses(id string) (ips []*current.IPConfig) {
	var list []string
	raw, err := os.ReadFile(s.addressesPath(id))
	if err != nil || json.Unmarshal(raw, &list) != nil {
		return nil
	}
	for _, cidr := range list {
		if ip, ipnet, err := net.ParseCIDR(cidr); err == nil {
			ips = append(ips, &current.IPConfig{Address: net.IPNet{IP: ip, Mask: ipnet.Mask}})
		}
	}
	return ips
}

func (s attachments) removeAddresses(id string) error {
	if err := os.Remove(s.addressesPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove addresses of attachment %s: %w", id, err)
	}
	return nil
}

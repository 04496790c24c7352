package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/utils"
)

// validate refuses what a plugin would misread, or report late and badly.
func (p Pod) validate() error {
	if err := validateID(p.ID); err != nil {
		return err
	}
	for _, arg := range []struct{ what, value string }{
		{"namespace", p.Namespace}, {"name", p.Name}, {"uid", p.UID},
	} {
		// CNI_ARGS is one string of key=value pairs without any quoting.
		if strings.ContainsAny(arg.value, ";=\x00\n") {
			return fmt.Errorf("pod %s: %s %q has a character that CNI cannot carry: %w", p.ID, arg.what, arg.value, errdefs.ErrInvalidArgument)
		}
	}
	if err := validatePorts(p.PortMappings); err != nil {
		return fmt.Errorf("pod %s: %w", p.ID, err)
	}
	for _, bits := range []int64{p.IngressBandwidth, p.EgressBandwidth} {
		if bits == 0 {
			continue
		}
		if err := checkBandwidth(bits); err != nil {
			return fmt.Errorf("pod %s: %w", p.ID, err)
		}
	}
	return nil
}

// validateID keeps ids to what may name a file and what plugins accept.
func validateID(id string) error {
	if err := utils.ValidateContainerID(id); err != nil {
		return fmt.Errorf("pod id %q is not a CNI container id: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func validatePorts(mappings []PortMapping) error {
	type hostPort struct {
		protocol, ip string
		port         int32
	}
	taken := make(map[hostPort]int32)
	for _, m := range mappings {
		protocol := strings.ToLower(m.Protocol)
		switch protocol {
		case "tcp", "udp", "sctp":
		default:
			return fmt.Errorf("port mapping %d: protocol %q is not tcp, udp or sctp: %w", m.ContainerPort, m.Protocol, errdefs.ErrInvalidArgument)
		}
		if m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return fmt.Errorf("port mapping: container port %d is not between 1 and 65535: %w", m.ContainerPort, errdefs.ErrInvalidArgument)
		}
		if m.HostPort < 0 || m.HostPort > 65535 {
			return fmt.Errorf("port mapping %d: host port %d is not between 0 and 65535: %w", m.ContainerPort, m.HostPort, errdefs.ErrInvalidArgument)
		}
		if m.HostIP != "" {
			if _, err := netip.ParseAddr(m.HostIP); err != nil {
				return fmt.Errorf("port mapping %d: host address %q is not an IP address: %w", m.ContainerPort, m.HostIP, errdefs.ErrInvalidArgument)
			}
		}
		if m.HostPort == 0 {
			continue
		}
		key := hostPort{protocol, m.HostIP, m.HostPort}
		if other, ok := taken[key]; ok && other != m.ContainerPort {
			return fmt.Errorf("port mapping: %s host port %d is mapped to both %d and %d: %w", protocol, m.HostPort, other, m.ContainerPort, errdefs.ErrInvalidArgument)
		}
		taken[key] = m.ContainerPort
	}
	return nil
}

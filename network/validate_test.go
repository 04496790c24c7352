package network

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestValidatePod(t *testing.T) {
	good := func() Pod {
		return Pod{
			ID: "c0ffee", Namespace: "default", Name: "web", UID: "4711",
			PortMappings: []PortMapping{
				{Protocol: "TCP", ContainerPort: 80, HostPort: 8080},
				{Protocol: "udp", ContainerPort: 80, HostPort: 8080},
				{Protocol: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"},
				{Protocol: "tcp", ContainerPort: 80, HostPort: 8080}, // the first again
				{Protocol: "SCTP", ContainerPort: 65535, HostIP: "::1"},
				{Protocol: "tcp", ContainerPort: 81},
				{Protocol: "tcp", ContainerPort: 82},
			},
			IngressBandwidth: 1000,
		}
	}
	if err := good().validate(); err != nil {
		t.Fatalf("a good pod: %v", err)
	}
	port := func(m PortMapping) func(*Pod) {
		return func(p *Pod) { p.PortMappings = append(p.PortMappings, m) }
	}
	for name, tc := range map[string]struct {
		change func(*Pod)
		says   string
	}{
		"no id":              {func(p *Pod) { p.ID = "" }, "pod id"},
		"path as id":         {func(p *Pod) { p.ID = "../../etc/passwd" }, "pod id"},
		"argument injection": {func(p *Pod) { p.Name = "a;K8S_POD_UID=b" }, "name"},
		"newline":            {func(p *Pod) { p.Namespace = "a\nb" }, "namespace"},
		"equals sign":        {func(p *Pod) { p.UID = "a=b" }, "uid"},
		"protocol":           {port(PortMapping{Protocol: "icmp", ContainerPort: 1}), "protocol"},
		"no protocol":        {port(PortMapping{ContainerPort: 1}), "protocol"},
		"container port 0":   {port(PortMapping{Protocol: "tcp", HostPort: 1}), "container port"},
		"container port":     {port(PortMapping{Protocol: "tcp", ContainerPort: 65536}), "container port"},
		"host port":          {port(PortMapping{Protocol: "tcp", ContainerPort: 1, HostPort: 65536}), "host port"},
		"negative host port": {port(PortMapping{Protocol: "tcp", ContainerPort: 1, HostPort: -1}), "host port"},
		"host address":       {port(PortMapping{Protocol: "tcp", ContainerPort: 1, HostPort: 1, HostIP: "node"}), "host address"},
		"host port twice":    {port(PortMapping{Protocol: "tcp", ContainerPort: 81, HostPort: 8080}), "both 80 and 81"},
		"low bandwidth":      {func(p *Pod) { p.EgressBandwidth = 1 }, "bandwidth"},
		"negative bandwidth": {func(p *Pod) { p.IngressBandwidth = -1 }, "bandwidth"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := good()
			tc.change(&pod)
			err := pod.validate()
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v; want an invalid argument that says %q", err, tc.says)
			}
		})
	}
}

package network

import (
	"fmt"
	"path/filepath"
	"testing"
)

// BenchmarkPod attaches and detaches a pod, to tell what each plugin costs. The
// namespace is made outside of the measured time.
func BenchmarkPod(b *testing.B) {
	const (
		bridge  = `{"type":"bridge","bridge":%q,"isGateway":true%s,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.89.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`
		portmap = `,{"type":"portmap","capabilities":{"portMappings":true}%s}`
	)
	for _, bc := range []struct{ name, bridge, rest string }{
		{"bridge", "", ""},
		{"bridge masq iptables", `,"ipMasq":true,"ipMasqBackend":"iptables"`, ""},
		{"bridge masq nftables", `,"ipMasq":true,"ipMasqBackend":"nftables"`, ""},
		{"bridge portmap iptables", "", fmt.Sprintf(portmap, `,"backend":"iptables"`)},
		{"bridge portmap nftables", "", fmt.Sprintf(portmap, `,"backend":"nftables"`)},
		{"masq portmap iptables", `,"ipMasq":true,"ipMasqBackend":"iptables"`, fmt.Sprintf(portmap, `,"backend":"iptables"`)},
		{"masq portmap nftables", `,"ipMasq":true,"ipMasqBackend":"nftables"`, fmt.Sprintf(portmap, `,"backend":"nftables"`)},
	} {
		for _, ports := range []int{0, 1} {
			b.Run(fmt.Sprintf("%s/ports %d", bc.name, ports), func(b *testing.B) {
				n := newNode(b, "1.0.0")
				n.configure(fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"plugins":[`+bridge+`%s]}`, n.name, n.bridge, bc.bridge, n.leases, bc.rest))
				pod := Pod{ID: "bench", Name: "bench", Namespace: "default", NetNS: newNamespace(b)}
				for i := range ports {
					pod.PortMappings = append(pod.PortMappings, PortMapping{Protocol: "TCP", ContainerPort: 80, HostPort: int32(8080 + i)})
				}
				n.attach(pod)
				for b.Loop() {
					b.StopTimer()
					if err := n.Detach(b.Context(), pod); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					n.attach(pod)
				}
				b.StopTimer()
				if err := n.Detach(b.Context(), pod); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func BenchmarkNamespace(b *testing.B) {
	needsRoot(b)
	path := filepath.Join(b.TempDir(), "ns")
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			if err := CreateNamespace(path); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := RemoveNamespace(path); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

func BenchmarkLoadConfig(b *testing.B) {
	dir := b.TempDir()
	writeFile(b, filepath.Join(dir, "10-net.conflist"), exampleList)
	for b.Loop() {
		if _, err := loadConfig(dir); err != nil {
			b.Fatal(err)
		}
	}
}

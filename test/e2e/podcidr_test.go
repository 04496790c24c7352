package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func (k kit) setPodCIDR(cidr string) error {
	_, err := k.runtime().UpdateRuntimeConfig(k.ctx, &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}},
	})
	return err
}

func TestUpdateRuntimeConfigMakesTheNetwork(t *testing.T) {
	template := filepath.Join(t.TempDir(), "cni.template")
	k := ownNode(t, testenv.Options{NoNetwork: true, DaemonArgs: []string{"--log-level", "2"}, Config: "[cni]\nconf_template = '" + template + "'\n"})
	// The environment's own network with its subnet taken out.
	k.must(k.env.WriteNetwork())
	conf := onlyConf(k)
	content := readFile(k, conf)
	k.must(os.Remove(conf))
	k.must(os.WriteFile(template, []byte(strings.Replace(content, k.env.Subnet.String(), "{{.PodCIDR}}", 1)), 0o644))

	k.refused(k.setPodCIDR("10.0.0.0/99"), codes.InvalidArgument, "10.0.0.0/99")
	k.must(k.setPodCIDR("")) // the kubelet before the node has addresses
	if entries, err := os.ReadDir(k.env.CNIConfDir); err != nil || len(entries) > 0 {
		t.Errorf("after nothing was set there are %v, %v", entries, err)
	}
	k.must(k.setPodCIDR(k.env.Subnet.String()))
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		resp, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{})
		k.must(err)
		if resp.Status.Conditions[1].Status {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the network is not ready: %v", resp.Status.Conditions)
		}
	}
	id, _ := k.pod()
	ip, err := k.env.Client.PodIP(k.ctx, id)
	k.must(err)
	if a, err := netip.ParseAddr(ip); err != nil || !k.env.Subnet.Contains(a) {
		t.Errorf("the pod's address is %s, not of %s", ip, k.env.Subnet)
	}
}

// TestUpdateRuntimeConfigWithoutATemplate: accepted, for a network that comes from
// elsewhere, and refused when malformed all the same.
func TestUpdateRuntimeConfigWithoutATemplate(t *testing.T) {
	k := newKit(t)
	before := readFile(k, onlyConf(k))
	k.must(k.setPodCIDR("10.254.0.0/24"))
	if readFile(k, onlyConf(k)) != before {
		t.Error("the network was changed")
	}
	k.refused(k.setPodCIDR("nonsense"), codes.InvalidArgument, "nonsense")
}

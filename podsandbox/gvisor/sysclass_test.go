package gvisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// showClass prints /sys/class as the tests below expect it.
const showClass = `cd /sys/class && ls; cd net 2>/dev/null && for i in *; do for f in *; do echo "$i $(cat $i/address) $(cat $i/mtu) $(cat $i/ifindex) $(cat $i/operstate) $(cat $i/type) $(cat $i/flags)"; break; done; done; ip -o link`

func TestSysClassNet(t *testing.T) {
	e := newTestEngine(t)
	p := bootPod(t, e)
	var eth0 *netlink.LinkAttrs
	p.ns.inPod(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkSetMTU(l, 1400)
		}
		if err == nil {
			l, err = netlink.LinkByName("eth0")
		}
		if err == nil {
			eth0 = l.Attrs()
		}
		return err
	})
	if err := p.StartRoot(testContext(t)); err != nil {
		t.Fatal(err)
	}
	own := []string{"power_supply"} // of the Sentry
	if productName() != "" {
		own = append(own, "dmi")
	}
	slices.Sort(own)
	all := append([]string{"net"}, own...)
	slices.Sort(all)

	check := func(p *pod) {
		t.Helper()
		out, _ := p.run(shell(newRootfs(t), showClass))
		if !strings.HasPrefix(out, strings.Join(all, "\n")+"\n") {
			t.Errorf("/sys/class is\n%s", out)
		}
		for _, want := range []string{
			"lo 00:00:00:00:00:00 65522 1 unknown 772 0x9\n",
			fmt.Sprintf("eth0 %s 1400 2 up 1 0x1\n", eth0.HardwareAddr),
			// The Sentry's own word for the same.
			"1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65522 ",
			"2: eth0: <UP,LOWER_UP> mtu 1400 ", "link/ether " + eth0.HardwareAddr.String(),
		} {
			if !strings.Contains(out, want) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
	}
	check(p)

	s, err := e.Adopt(testContext(t), p.cfg, p.Process())
	if err != nil {
		t.Fatal(err)
	}
	adopted := s.(*Sandbox)
	defer adopted.translator.sysClass.close()
	check(&pod{Sandbox: adopted, t: t, eng: e, ns: p.ns})

	// What the request says of the place holds.
	for name, change := range map[string]func(*specs.Spec){
		"masked":       func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/sys/class/net"} },
		"masked above": func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/sys/class/"} },
		"mounted over": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/class/power_supply", Type: "tmpfs", Source: "tmpfs"})
		},
		"no sysfs": func(s *specs.Spec) {
			i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/sys" })
			s.Mounts[i] = specs.Mount{Destination: "/sys", Type: "tmpfs", Source: "tmpfs"}
		},
	} {
		spec := shell(newRootfs(t), "ls /sys/class")
		change(spec)
		out, _ := p.run(spec)
		if strings.Contains(out, "net") {
			t.Errorf("%s: /sys/class is %q", name, out)
		}
		if want := strings.Join(own, "\n") + "\n"; (name == "masked" || name == "mounted over") && out != want {
			t.Errorf("%s: the Sentry's own /sys/class is %q, known is %q", name, out, want)
		}
	}
}

// A pod on the host's network has interfaces that come and go: nothing is said of them.
func TestSysClassNetOfTheHost(t *testing.T) {
	p := startPod(t, func(c *engine.Config) { c.NetNS = "" })
	if out, _ := p.run(shell(newRootfs(t), "ls /sys/class")); strings.Contains(out, "net") {
		t.Errorf("/sys/class is %q", out)
	}
}

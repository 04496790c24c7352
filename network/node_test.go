package network

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
)

// node is a CNI configuration on directories, a bridge and subnets of its own.
type node struct {
	t       testing.TB
	name    string // of the network
	bridge  string
	confDir string
	leases  string
	actions string // what failcni is to do
	log     string // what it was asked
	options Options
	*CNI
}

var nodes atomic.Int32

// newNode configures a network of the real plugins, with failcni at the end.
func newNode(t testing.TB, cniVersion string) *node {
	t.Helper()
	real := pluginDir(t)
	dir := t.TempDir()
	i := nodes.Add(1)
	n := &node{
		t:       t,
		name:    fmt.Sprintf("net%d", i),
		bridge:  fmt.Sprintf("br%d", i),
		confDir: filepath.Join(dir, "net.d"),
		leases:  filepath.Join(dir, "leases"),
		actions: filepath.Join(dir, "actions"),
		log:     filepath.Join(dir, "log"),
		options: Options{
			ConfDir:  filepath.Join(dir, "net.d"),
			BinDirs:  []string{real, filepath.Dir(program(t))},
			CacheDir: filepath.Join(dir, "cache"),
			Timeout:  2 * patience,
		},
	}
	n.configure(n.config(cniVersion, int(i)))
	n.restart()
	t.Cleanup(func() {
		n.Close()
		if link, err := netlink.LinkByName(n.bridge); err == nil {
			_ = netlink.LinkDel(link)
		}
	})
	return n
}

func (n *node) config(cniVersion string, i int) string {
	type object = map[string]any
	raw, err := json.Marshal(object{
		"cniVersion": cniVersion,
		"name":       n.name,
		"plugins": []object{
			{
				"type": "bridge", "bridge": n.bridge, "isGateway": true, "ipMasq": true,
				"ipam": object{
					"type": "host-local", "dataDir": n.leases,
					"ranges": [][]object{
						{{"subnet": fmt.Sprintf("10.88.%d.0/24", i)}},
						{{"subnet": fmt.Sprintf("fd00:88:%d::/64", i)}},
					},
					"routes": []object{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
			{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
			{"type": "firewall"},
			{
				"type": "failcni", "actionFile": n.actions, "log": n.log,
				"capabilities": object{"io.kubernetes.cri.pod-annotations": true},
			},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(raw)
}

func (n *node) configure(config string) {
	n.t.Helper()
	writeFile(n.t, filepath.Join(n.confDir, "10-net.conflist"), config)
}

// restart stands for a daemon that died and one that came after it.
func (n *node) restart() {
	n.t.Helper()
	if n.CNI != nil {
		n.CNI.Close()
	}
	cni, err := NewCNI(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.CNI = cni
}

// do tells failcni what to do from now on.
func (n *node) do(actions map[string]string) {
	n.t.Helper()
	raw, err := json.Marshal(actions)
	if err != nil {
		n.t.Fatal(err)
	}
	writeFile(n.t, n.actions, string(raw))
}

// asked counts the runs of failcni with a command.
func (n *node) asked(command string) int {
	raw, err := os.ReadFile(n.log)
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	return strings.Count("\n"+string(raw), "\n"+command+" ")
}

// pod returns a pod in a namespace of its own that asks for all there is.
func (n *node) pod(id string) Pod {
	n.t.Helper()
	return Pod{
		ID: id, Namespace: "default", Name: id, UID: "uid-" + id,
		NetNS:            newNamespace(n.t),
		PortMappings:     []PortMapping{{Protocol: "TCP", ContainerPort: 80, HostPort: 8080}},
		IngressBandwidth: 10_000_000,
		EgressBandwidth:  10_000_000,
	}
}

// attach attaches a pod that must be attachable.
func (n *node) attach(pod Pod) Result {
	n.t.Helper()
	result, err := n.Attach(n.t.Context(), pod)
	if err != nil {
		n.t.Fatal(err)
	}
	return result
}

// check asks the plugins, by CHECK, whether a pod's attachment is as they left it.
func (n *node) check(pod Pod) {
	n.t.Helper()
	a, err := n.records.load(pod.ID)
	if err != nil {
		n.t.Errorf("check pod %s: %v", pod.ID, err)
		return
	}
	list, err := parseList(a.Config)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.cni.CheckNetworkList(n.t.Context(), list, a.runtimeConf()); err != nil {
		n.t.Errorf("check pod %s: %v", pod.ID, err)
	}
}

// kept fails the test unless a pod still has its lease and its interface.
func (n *node) kept(pod Pod) {
	n.t.Helper()
	leases, err := n.Leases()
	if err != nil {
		n.t.Fatal(err)
	}
	if !slices.ContainsFunc(leases, func(l Lease) bool { return l.PodID == pod.ID }) {
		n.t.Errorf("pod %s has lost its address; the leases are %v", pod.ID, leases)
	}
	n.check(pod)
}

// only returns what GC is to be told when these pods are valid.
func only(pods ...Pod) func() []Pod { return func() []Pod { return pods } }

// warm has a pod come and go, which leaves what a network has once: its bridge
// and the chains that all pods share.
func (n *node) warm() {
	n.t.Helper()
	pod := n.pod("warm")
	n.attach(pod)
	if err := n.Detach(n.t.Context(), pod); err != nil {
		n.t.Fatal(err)
	}
}

var counters = regexp.MustCompile(`\[\d+:\d+\]|packets \d+ bytes \d+|# Generated.*|# Completed.*`)

// holdings are all that pods own on the node, one a line.
func (n *node) holdings() []string {
	n.t.Helper()
	var all []string
	for _, command := range [][]string{
		{"iptables-save"}, {"ip6tables-save"}, {"nft", "list", "ruleset"}, {"ip", "-br", "link"},
	} {
		out, err := exec.Command(command[0], command[1:]...).Output()
		if err != nil {
			n.t.Fatalf("%v: %v", command, err)
		}
		for line := range strings.Lines(counters.ReplaceAllString(string(out), "")) {
			all = append(all, strings.Join(append(command[:1:1], strings.Fields(line)...), " "))
		}
	}
	for _, pattern := range []string{
		n.leases + "/*/*", n.options.CacheDir + "/*/*",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, file := range files {
			// Kept for the next pod by host-local.
			if base := filepath.Base(file); base != "lock" && !strings.HasPrefix(base, "last_reserved_ip") {
				all = append(all, file)
			}
		}
	}
	slices.Sort(all)
	// A bridge without ports has no carrier, a matter of time; and an address of
	// the bridge's own changes with its ports.
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "ip br") })
}

// nothingLeft compares with the holdings of earlier.
func (n *node) nothingLeft(before []string) {
	n.t.Helper()
	after := n.holdings()
	for _, line := range after {
		if !slices.Contains(before, line) {
			n.t.Errorf("left: %s", line)
		}
	}
	if len(after) != len(before) && !n.t.Failed() {
		n.t.Errorf("%d things before, %d after", len(before), len(after))
	}
}

// has says whether something of a pod's is on the node.
func has(holdings []string, part string) bool {
	return slices.ContainsFunc(holdings, func(s string) bool { return strings.Contains(s, part) })
}

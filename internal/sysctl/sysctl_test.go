package sysctl

import (
	"reflect"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.tcp_rmem": "net/ipv4/tcp_rmem", "net/ipv4/tcp_rmem": "net/ipv4/tcp_rmem",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"x": "x",
	} {
		if got := Path(name); got != want {
			t.Errorf("%s is at %s, want %s", name, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		why         string // empty: it is possible
		malformed   bool
	}{
		{"net.ipv4.ip_unprivileged_port_start", "0", "", false},
		{"net/ipv4/ip_unprivileged_port_start", "80", "", false},
		{"net.ipv4.ip_unprivileged_port_start", "1023", "", false},
		{"net.ipv4.ip_unprivileged_port_start", "1024", "every port", false},
		{"net.ipv4.ip_unprivileged_port_start", "-1", "every port", false},
		{"net.ipv4.ip_unprivileged_port_start", "0 0", "every port", false},
		{"net.ipv4.ip_unprivileged_port_start", "eighty", "not a number", true},
		{"net.ipv4.ip_unprivileged_port_start", "", "every port", false},
		{"net.ipv4.ping_group_range", "0 2147483647", "", false},
		{"net.ipv4.ping_group_range", "1000\t1000", "", false},
		{"net.ipv4.ping_group_range", "1 0", "ping sockets", false},
		{"net.ipv4.ping_group_range", "0", "ping sockets", false},
		{"net.ipv4.tcp_syncookies", "1", "", false},
		{"net.ipv4.tcp_syncookies", " 1 ", "", false},
		{"net.ipv4.tcp_syncookies", "0", "SYN cookies", false},
		{"net.ipv4.tcp_keepalive_time", "7200", "", false},
		{"net.ipv4.tcp_keepalive_time", "600", "7200", false},
		{"net.ipv4.tcp_keepalive_intvl", "75", "", false},
		{"net.ipv4.tcp_keepalive_intvl", "10", "75", false},
		{"net.ipv4.tcp_keepalive_probes", "9", "", false},
		{"net.ipv4.tcp_keepalive_probes", "3", "9 probes", false},
		{"net.ipv4.tcp_fin_timeout", "60", "", false},
		{"net.ipv4.tcp_fin_timeout", "30", "60", false},
		{"net.core.somaxconn", "1024", "", false},
		{"net.core.somaxconn", "65535", "1024", false},
		{"kernel.shm_rmid_forced", "0", "", false},
		{"kernel.shm_rmid_forced", "1", "stay until", false},
		{"net.ipv4.ip_local_reserved_ports", "", "", false},
		{"net.ipv4.ip_local_reserved_ports", "8080,30000-32767", "", false},
		{"net.ipv4.ip_local_reserved_ports", "0-65535", "reserved", true},
		{"net.ipv4.ip_local_reserved_ports", "9-8", "9-8", true},
		{"net.ipv4.ip_local_reserved_ports", "70000", "70000", true},
		{"net.ipv4.tcp_rmem", "whatever", "", false}, // the sandbox says
	} {
		name, why, malformed := Check(map[string]string{tc.name: tc.value})
		if (why == "") != (tc.why == "") || !strings.Contains(why, tc.why) || malformed != tc.malformed || why != "" && name != tc.name {
			t.Errorf("%s=%q: %s %q, malformed %v", tc.name, tc.value, name, why, malformed)
		}
	}
	// A refusal names the first.
	if name, _, _ := Check(map[string]string{"net.ipv4.tcp_fin_timeout": "1", "kernel.shm_rmid_forced": "1"}); name != "kernel.shm_rmid_forced" {
		t.Errorf("the first one is %s", name)
	}
}

func TestSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		asked map[string]string
		want  []Setting
		shown map[string]string // of the two of ports
	}{
		"none":  {nil, nil, map[string]string{}},
		"fixed": {map[string]string{"net.ipv4.tcp_syncookies": "1"}, nil, map[string]string{}},
		"others": {
			map[string]string{"net.ipv4.tcp_wmem": "1 2 3", "net.ipv4.ip_local_port_range": "20000 30000"},
			[]Setting{{"net.ipv4.tcp_wmem", "net/ipv4/tcp_wmem", "1 2 3"}, {"net.ipv4.ip_local_port_range", portRange, "20000 30000"}},
			map[string]string{portRange: "20000\t30000\n"},
		},
		"reserved below": {
			map[string]string{"net.ipv4.ip_local_reserved_ports": "80,8080"},
			[]Setting{{"net.ipv4.ip_local_reserved_ports", portRange, "16000 65535"}},
			map[string]string{reservedPorts: "80,8080\n"},
		},
		"reserved within": {
			map[string]string{"net.ipv4.ip_local_reserved_ports": "30000-32767,65535"},
			[]Setting{{"net.ipv4.ip_local_reserved_ports", portRange, "32768 65534"}},
			map[string]string{reservedPorts: "30000-32767,65535\n"},
		},
		"reserved at both ends, and twice": {
			map[string]string{"net.ipv4.ip_local_reserved_ports": "65000-65535,15000-16100,15000-20000,15500"},
			[]Setting{{"net.ipv4.ip_local_reserved_ports", portRange, "20001 64999"}},
			map[string]string{reservedPorts: "65000-65535,15000-16100,15000-20000,15500\n"},
		},
		"both": {
			map[string]string{"net/ipv4/ip_local_reserved_ports": "1005", "net.ipv4.ip_local_port_range": "1000 1010"},
			[]Setting{{"net/ipv4/ip_local_reserved_ports", portRange, "1000 1004"}},
			map[string]string{portRange: "1000\t1010\n", reservedPorts: "1005\n"},
		},
		"a range that is none": {
			map[string]string{"net.ipv4.ip_local_port_range": "x"},
			[]Setting{{"net.ipv4.ip_local_port_range", portRange, "x"}},
			map[string]string{portRange: "x\n"},
		},
	} {
		if got := Settings(tc.asked); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: settings %v, want %v", name, got, tc.want)
		}
		shown := Shown(tc.asked)
		for _, path := range []string{portRange, reservedPorts} {
			if shown[path] != tc.shown[path] {
				t.Errorf("%s: %s shows %q, want %q", name, path, shown[path], tc.shown[path])
			}
		}
	}
	shown := Shown(map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "net.ipv4.ping_group_range": "5  7", "kernel.shm_rmid_forced": "0"})
	for path, want := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "80\n", "net/ipv4/ping_group_range": "5\t7\n", "net/ipv4/tcp_keepalive_intvl": "75\n", "kernel/shm_rmid_forced": "",
	} {
		if shown[path] != want {
			t.Errorf("%s shows %q, want %q", path, shown[path], want)
		}
	}
}

package preflight

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

func networking(ctx context.Context, o Options) []Finding {
	s, err := o.CNI.Survey(ctx)
	if err != nil {
		return bad("Install a network: put its configuration into the directory cni.conf_dir, or let the network's own pod do it.", "%v", err)
	}
	var all []Finding
	var names []string
	for _, p := range s.Plugins {
		names = append(names, p.Type)
		if p.Err != nil {
			all = append(all, bad(fmt.Sprintf("Install a current %s into one of cni.bin_dirs.", p.Type), "network %s of %s: %v", s.Name, s.File, p.Err)...)
		}
	}
	if len(all) > 0 {
		return all
	}
	if s.CNIVersion == "" || strings.HasPrefix(s.CNIVersion, "0.") || s.CNIVersion == "1.0.0" {
		return warn("Write cniVersion 1.1.0 into it if all its plugins know that.", "network %s of %s is of CNI %s: addresses that a crash of a plugin leaves are not collected", s.Name, s.File, s.CNIVersion)
	}
	return good("%s of %s, with %s", s.Name, s.File, strings.Join(names, ", "))
}

// firewall: plugins call these programs.
func firewall(ctx context.Context, o Options) []Finding {
	s, err := o.CNI.Survey(ctx)
	if err != nil || !s.Firewall {
		return good("no plugin of the network needs iptables or nft")
	}
	for _, program := range []string{"iptables", "nft"} {
		if path, err := exec.LookPath(program); err == nil {
			return good("%s", path)
		}
	}
	return bad("Install iptables or nftables.", "plugins of network %s set firewall rules, and neither iptables nor nft is in %s", s.Name, os.Getenv("PATH"))
}

func forwarding(context.Context, Options) []Finding {
	if readInt("/proc/sys/net/ipv4/ip_forward") == 1 {
		return good("net.ipv4.ip_forward is on")
	}
	return warn("Set net.ipv4.ip_forward to 1, and keep it in /etc/sysctl.d.", "net.ipv4.ip_forward is off: pods reach no other node unless a plugin turns it on")
}

func socket(_ context.Context, o Options) []Finding {
	fi, err := os.Lstat(o.Listen)
	if err != nil {
		return good("%s is free", o.Listen)
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return bad("Move it away, or configure another address to listen on.", "%s exists and is no socket", o.Listen)
	}
	if conn, err := net.Dial("unix", o.Listen); err == nil {
		conn.Close()
		if fi.Mode().Perm()&0o007 != 0 {
			return bad("Restart the daemon; it makes the socket anew.", "everybody may use %s (mode %o), which makes everybody root", o.Listen, fi.Mode().Perm())
		}
		return good("a daemon answers on %s", o.Listen)
	}
	return warn("Start the daemon, or remove the file.", "%s is left by a daemon that is gone", o.Listen)
}

// streaming: a port that is taken is the daemon's own when one runs.
func streaming(_ context.Context, o Options) []Finding {
	address := net.JoinHostPort(o.StreamAddress, strconv.Itoa(o.StreamPort))
	l, err := net.Listen("tcp", address)
	if err == nil {
		l.Close()
		return good("%s can be listened on", address)
	}
	if conn, dialErr := net.Dial("unix", o.Listen); dialErr == nil {
		conn.Close()
		return good("%s is taken, and a daemon runs", address)
	}
	return bad("Configure another address or port in [streaming], or end who has it.", "%v", err)
}

// Package sysctl knows what the kernel of a sandbox does where Linux has a switch and
// it has none: of these sysctls a pod may ask for what is done anyway, and sees it in
// /proc/sys, and is refused the rest. All others are the sandbox's to set or to refuse.
//
// It owns no files: the engine refuses, shows and sets by it.
// Tests of the engine hold it to real sandboxes.
package sysctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Path is a sysctl's file below /proc/sys. In the form with dots, slashes within a
// component stand for dots; in the form with slashes dots are literal.
func Path(name string) string {
	sep := strings.IndexAny(name, "./")
	if sep < 0 || name[sep] == '/' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// The files of sysctls that are more than a value here.
const (
	portRange     = "net/ipv4/ip_local_port_range"
	reservedPorts = "net/ipv4/ip_local_reserved_ports"
)

// firstPort and lastPort are the ephemeral ports of a sandbox that is not told others.
const firstPort, lastPort = 16000, 65535

// fixed is a sysctl that nothing can be written to.
type fixed struct {
	value string // as it is shown; empty where /proc/sys cannot show it
	does  string // what a sandbox does, for who asks for something else
	// fits tells whether a well-formed value asks for no more than is done; nil means
	// that it has to be value.
	fits func(numbers []int) bool
}

var table = map[string]fixed{
	// Every process may bind every port, so what lets processes do more than Linux's
	// 1024 does is so. From there on it is a restriction.
	"net/ipv4/ip_unprivileged_port_start": {"0", "every process may use every port", func(n []int) bool { return len(n) == 1 && n[0] >= 0 && n[0] < 1024 }},
	// Every process may open ping sockets. An empty range, as is Linux's default, lets
	// nobody.
	"net/ipv4/ping_group_range": {"0\t2147483647", "every process may open ping sockets", func(n []int) bool { return len(n) == 2 && n[0] >= 0 && n[0] <= n[1] }},

	"net/ipv4/tcp_syncookies":       {"1", "SYN cookies are sent when the queue of a listener is full", nil},
	"net/ipv4/tcp_keepalive_time":   {"7200", "probes begin after 7200 s unless the socket says otherwise", nil},
	"net/ipv4/tcp_keepalive_intvl":  {"75", "probes are 75 s apart unless the socket says otherwise", nil},
	"net/ipv4/tcp_keepalive_probes": {"9", "9 probes are sent unless the socket says otherwise", nil},
	"net/ipv4/tcp_fin_timeout":      {"60", "closed connections linger for 60 s unless the socket says otherwise", nil},

	"net/core/somaxconn": {"1024", "a listener's queue has at most 1024 connections", nil},

	// Its directory has files that are computed when they are read, and cannot be covered.
	"kernel/shm_rmid_forced": {"", "System V segments stay until they are removed", func(n []int) bool { return len(n) == 1 && n[0] == 0 }},
}

// Check returns why a sandbox cannot have these sysctls, if it cannot, with the name
// of the first one. Malformed says that no kernel could.
func Check(asked map[string]string) (name, why string, malformed bool) {
	for _, name := range names(asked) {
		path := Path(name)
		if path == reservedPorts {
			if _, err := ephemeral(asked); err != nil {
				return name, err.Error(), true
			}
			continue
		}
		f, ok := table[path]
		if !ok {
			continue
		}
		numbers, err := parse(asked[name])
		if err != nil {
			return name, err.Error(), true
		}
		if f.fits == nil && len(numbers) == 1 && strconv.Itoa(numbers[0]) == f.value || f.fits != nil && f.fits(numbers) {
			continue
		}
		return name, f.does, false
	}
	return "", "", false
}

// Setting is what is to be written for a sysctl.
type Setting struct{ Name, Path, Value string }

// Settings are what is to be written in a sandbox for sysctls that Check has found
// possible, sorted.
func Settings(asked map[string]string) []Setting {
	var out []Setting
	reserves := false
	for _, name := range names(asked) {
		path := Path(name)
		_, isFixed := table[path]
		reserves = reserves || path == reservedPorts
		if !isFixed && path != reservedPorts && path != portRange {
			out = append(out, Setting{name, path, asked[name]})
		}
	}
	for _, name := range names(asked) {
		if path := Path(name); path == portRange && !reserves || path == reservedPorts {
			out = append(out, Setting{name, portRange, ephemeralOf(asked)})
		}
	}
	return out
}

// Shown are the contents of files below /proc/sys, by path, that are other than the
// sandbox has them, in a pod that asked for these.
func Shown(asked map[string]string) map[string]string {
	out := map[string]string{}
	for path, f := range table {
		if f.value != "" {
			out[path] = f.value + "\n"
		}
	}
	for name, value := range asked {
		path := Path(name)
		if f, ok := table[path]; ok && f.value == "" || !ok && path != reservedPorts && path != portRange {
			continue
		}
		out[path] = strings.Join(strings.Fields(value), "\t") + "\n"
	}
	return out
}

func names(asked map[string]string) []string {
	out := make([]string, 0, len(asked))
	for name := range asked {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func parse(value string) ([]int, error) {
	var out []int
	for _, field := range strings.Fields(value) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", field)
		}
		out = append(out, int(n))
	}
	return out, nil
}

// ports are a range with both its ends.
type ports struct{ first, last int }

// ephemeralOf is ephemeral as it is written; what is malformed stays, for the sandbox
// to refuse.
func ephemeralOf(asked map[string]string) string {
	r, err := ephemeral(asked)
	if err != nil {
		for name, value := range asked {
			if Path(name) == portRange {
				return value
			}
		}
	}
	return fmt.Sprintf("%d %d", r.first, r.last)
}

// ephemeral are the ports to be given to who asks for none: of those that were asked
// for, or the sandbox's own, the longest part without a reserved one. The sandbox has
// but one range.
func ephemeral(asked map[string]string) (ports, error) {
	all := ports{firstPort, lastPort}
	var reserved []ports
	for name, value := range asked {
		var err error
		switch Path(name) {
		case portRange:
			n, perr := parse(value)
			if perr != nil || len(n) != 2 || n[0] < 1 || n[1] > lastPort || n[0] > n[1] {
				return all, fmt.Errorf("%q is not a range of ports", value)
			}
			all = ports{n[0], n[1]}
		case reservedPorts:
			if reserved, err = parsePorts(value); err != nil {
				return all, err
			}
		}
	}
	slices.SortFunc(reserved, func(a, b ports) int { return a.first - b.first })
	best, next := ports{0, -1}, all.first
	for _, r := range append(reserved, ports{all.last + 1, all.last + 1}) {
		if gap := (ports{next, min(r.first-1, all.last)}); gap.last-gap.first > best.last-best.first {
			best = gap
		}
		next = max(next, r.last+1)
	}
	if best.last < best.first {
		return all, fmt.Errorf("every port from %d to %d is reserved", all.first, all.last)
	}
	return best, nil
}

// parsePorts reads a list such as 80,8000-8100.
func parsePorts(value string) ([]ports, error) {
	var out []ports
	for part := range strings.SplitSeq(strings.TrimSpace(value), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, aerr := strconv.ParseUint(first, 10, 16)
		b, berr := strconv.ParseUint(last, 10, 16)
		if aerr != nil || berr != nil || a > b {
			return nil, fmt.Errorf("%q is neither a port nor a range of ports", part)
		}
		out = append(out, ports{int(a), int(b)})
	}
	return out, nil
}

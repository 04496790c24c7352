// Package preflight finds out whether a node can run pods, and says of each thing
// that is missing how to mend it. It asks the kernel by trying, where it can, and
// leaves nothing behind. It changes nothing, needs root for most of its answers,
// and may run beside a daemon.
package preflight

import (
	"context"
	"fmt"

	"github.com/cri-sandbox/cri-sandbox/network"
)

// Level says what a finding means for the node.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning" // pods run, something is less than it could be
	Error   Level = "error"   // no pod, or no daemon, can run
)

// Finding is the answer of one check.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"` // one sentence; empty for OK
}

// Options say what the daemon of this node is configured to use.
type Options struct {
	Root, State   string
	Listen        string // path of the CRI socket
	StreamAddress string // IP address
	StreamPort    int    // 0 for any
	CNI           *network.CNI

	// Boot boots a sandbox, starts its root container and ends it.
	Boot bool
}

// Run makes all checks, each on its own, in a fixed order.
func Run(ctx context.Context, o Options) []Finding {
	checks := []struct {
		name string
		run  func(context.Context, Options) []Finding
	}{
		{"user", user}, {"kernel", kernel}, {"clock", clock},
		{"cgroups", cgroups}, {"namespaces", namespaces}, {"seccomp", seccomp}, {"ptrace", ptrace},
		{"limits", limits}, {"directories", directories}, {"overlay", overlay}, {"space", space},
		{"network", networking}, {"firewall", firewall}, {"forwarding", forwarding},
		{"socket", socket}, {"streaming", streaming}, {"boot", boot},
	}
	var all []Finding
	for _, c := range checks {
		for _, f := range c.run(ctx, o) {
			f.Check = c.name
			all = append(all, f)
		}
	}
	return all
}

// Ready is false when a finding is an error.
func Ready(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == Error {
			return false
		}
	}
	return true
}

func good(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Message: fmt.Sprintf(format, args...)}}
}

func warn(mend, format string, args ...any) []Finding {
	return []Finding{{Level: Warning, Message: fmt.Sprintf(format, args...), Mend: mend}}
}

func bad(mend, format string, args ...any) []Finding {
	return []Finding{{Level: Error, Message: fmt.Sprintf(format, args...), Mend: mend}}
}

package testenv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Observation is what belongs to the environment on the machine at one moment,
// by kind. Each item names the thing so that a person finds it.
type Observation map[string][]string

// Kinds are the keys of an Observation, in the order of reports.
var Kinds = []string{"process", "mount", "link", "lease", "rule", "chain", "cgroup", "state", "record", "rootfs"}

// scans says how each kind is found. A process is one of the staged sandbox
// program or with the environment's folder among its arguments, other than the
// daemon. A mount lies below the environment's folder, pinned network namespaces
// among them. A link is attached to the bridge. A lease is an address file of
// host-local. A rule (iptables, ip6tables, nftables) mentions the network, the
// bridge or an address of its subnets; a chain is one of iptables that the plugins
// made for a pod of the environment and that no rule belongs to. A cgroup is below
// the environment's parent or carries an id that the client has seen. state and record are files and folders in the daemon's
// --state and --root (less its images); rootfs are the writable layers and
// snapshots.
func (e *Env) scans() map[string]func() ([]string, error) {
	return map[string]func() ([]string, error){
		"process": e.processes,
		"mount":   e.mounts,
		"link":    e.links,
		"lease":   e.leases,
		"rule":    e.rules,
		"chain":   e.orphanChains,
		"cgroup":  e.cgroups,
		"state":   func() ([]string, error) { return files(e.State) },
		"record":  func() ([]string, error) { return files(e.Root, "images") },
		"rootfs":  e.layers,
	}
}

// Observe looks at everything now.
func (e *Env) Observe() (Observation, error) {
	o := Observation{}
	for kind, scan := range e.scans() {
		items, err := scan()
		if err != nil {
			return nil, fmt.Errorf("observe %s: %w", kind, err)
		}
		slices.Sort(items)
		o[kind] = items
	}
	return o, nil
}

// Since returns what o has and before had not, as "kind: item" lines.
func (o Observation) Since(before Observation) []string {
	var out []string
	for _, kind := range Kinds {
		for _, item := range o[kind] {
			if !slices.Contains(before[kind], item) {
				out = append(out, kind+": "+item)
			}
		}
	}
	return out
}

// String counts the items of each kind.
func (o Observation) String() string {
	var parts []string
	for _, kind := range Kinds {
		parts = append(parts, fmt.Sprintf("%s %d", kind, len(o[kind])))
	}
	return strings.Join(parts, ", ")
}

// MarkBaseline makes this moment the one that Audit compares with. New does it
// when the daemon is ready. A test that counts snapshots or the views of an
// image does it again after its first pull, or its first pod.
func (e *Env) MarkBaseline() error {
	o, err := e.Observe()
	if err != nil {
		return err
	}
	e.baseline = o
	return nil
}

// Baseline returns what MarkBaseline saw last.
func (e *Env) Baseline() Observation { return e.baseline }

// Audit returns an error that lists everything that is there now and was not at
// the baseline. The kernel removes some things a moment after the call that asked
// for it (links of a dying namespace, processes), so it looks again for up to ten
// seconds before it complains.
func (e *Env) Audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		o, err := e.Observe()
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		left := o.Since(e.baseline)
		if len(left) == 0 {
			return nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return errors.New("audit: left behind:\n  " + strings.Join(left, "\n  "))
		}
	}
}

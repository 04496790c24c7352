// Package leftovers finds what pods have left on a node and no record owns: it looks
// from outside, at the kernel and the disk, and so sees also what a daemon has
// forgotten. It owns nothing and keeps nothing.
//
// What it calls a leftover is provably of the given root and state directory: a
// process that says so and that root started, a mount or a pinned namespace or a
// directory below the state directory, a cgroup that carries the root's mark, a network
// attachment on the root's record, an address of its network, a writable layer
// of its image store. And no record names the pod or the container.
//
// A pod's record is written before anything else of it is made, and goes when all
// else is gone. So a scan is right also while a daemon works: what it reports was
// there before the records were read, and is still there afterwards.
//
// Repair is right beside the daemon of these paths, or when none runs: what is removed
// carries the id of a pod or container that no record names, and no id is used twice.
package leftovers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// Config says whose leftovers are meant.
type Config struct {
	Paths layout.Paths // of a daemon, absolute and clean
	CNI   *network.CNI

	Engines []engine.Finder // whose sandboxes there may be

	// RemoveLayer removes a writable layer from the image store of a daemon that runs.
	// Nil means that none does, and the layer is removed on disk.
	RemoveLayer func(ctx context.Context, key string) error
}

// Kind is a sort of leftover.
type Kind string

// In the order in which they are removed: what uses a thing goes before it.
const (
	Process    Kind = "process"
	Attachment Kind = "attachment" // to the network
	Lease      Kind = "lease"      // an address without an attachment
	Mount      Kind = "mount"
	Layer      Kind = "layer" // writable, of a container
	Namespace  Kind = "namespace"
	Cgroup     Kind = "cgroup"
	Directory  Kind = "directory" // with FIFOs, spools and sockets
)

// Leftover is one thing that no record owns.
type Leftover struct {
	Kind Kind   `json:"kind"`
	Pod  string `json:"pod"` // the id that it carries; empty where only a container's is known
	What string `json:"what"`

	container string // or empty
	remove    func(context.Context) error
}

// same is true for the same thing, found twice.
func (l Leftover) same(o Leftover) bool { return l.Kind == o.Kind && l.What == o.What }

// scans find all of a kind, with and without a record, in the order of removal.
func (c Config) scans() []func() ([]Leftover, error) {
	return []func() ([]Leftover, error){
		c.processes, c.attachments, c.leases, c.mounts, c.layers, c.namespaces, c.cgroups, c.directories,
	}
}

// Scan returns what no record owns, in the order of removal.
func Scan(c Config) ([]Leftover, error) {
	before, err := c.all()
	if err != nil || len(before) == 0 {
		return nil, err
	}
	owned, err := c.records()
	if err != nil {
		return nil, err
	}
	var orphans []Leftover
	for _, l := range before {
		if !owned.has(l) {
			orphans = append(orphans, l)
		}
	}
	if len(orphans) == 0 {
		return nil, nil
	}
	after, err := c.all()
	if err != nil {
		return nil, err
	}
	still := orphans[:0]
	for _, l := range orphans {
		for _, now := range after {
			if l.same(now) {
				still = append(still, l)
				break
			}
		}
	}
	return still, nil
}

func (c Config) all() ([]Leftover, error) {
	var all []Leftover
	for _, scan := range c.scans() {
		found, err := scan()
		if err != nil {
			return nil, fmt.Errorf("look for leftovers: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// Outcome is what became of a leftover; Err is nil when it is gone.
type Outcome struct {
	Leftover
	Err error
}

// Repair removes leftovers of a Scan, in their order, and goes on after errors.
func Repair(ctx context.Context, found []Leftover) []Outcome {
	outcomes := make([]Outcome, len(found))
	for i, l := range found {
		outcomes[i] = Outcome{Leftover: l, Err: l.remove(ctx)}
	}
	return outcomes
}

// Sweep removes what there is. It is for a daemon, which calls it again after an error.
func Sweep(ctx context.Context, c Config) error {
	found, err := Scan(c)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range Repair(ctx, found) {
		if o.Err != nil {
			klog.ErrorS(o.Err, "Failed to remove a leftover", "kind", o.Kind, "what", o.What)
			errs = append(errs, o.Err)
			continue
		}
		klog.InfoS("Removed a leftover", "kind", o.Kind, "what", o.What)
	}
	return errors.Join(errs...)
}

// owners are the pods and containers on record.
type owners struct {
	pods       map[string]bool
	containers map[string]bool
}

func (c Config) records() (owners, error) {
	ids, err := record.IDs(c.Paths.Records())
	if err != nil {
		return owners{}, err
	}
	o := owners{map[string]bool{}, map[string]bool{}}
	for pod, containers := range ids {
		o.pods[pod] = true
		for _, id := range containers {
			o.containers[id] = true
		}
	}
	return o, nil
}

func (o owners) has(l Leftover) bool {
	if l.container != "" {
		return o.containers[l.container]
	}
	return o.pods[l.Pod]
}

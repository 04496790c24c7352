// Package podsandbox owns the lives of a node's pods and containers: it runs, stops and
// removes them, chooses the engine that runs each pod by its runtime handler, and takes
// them over after a restart. What is known of them is package state's; what passes
// between them and clients, what they use and what they may use belongs to the packages
// stream, stats and resources, and their files to package rootfs. It knows neither gRPC
// (package cri) nor how a sandbox works (an engine), how an address is given (package
// network) or where a layer lies (package image).
//
// Every operation goes one way:
//
//	request → record the intent → act → record the result → event
//
// A disk that cannot be written to refuses what is new. What ends, or is to end, ends
// and is told all the same, and is recorded afterwards (record.Force).
//
// What an operation did is undone, or taken up again, from the record alone, so a daemon
// that was killed at any instruction and a request that failed meet in the same code:
// stopping and removing are idempotent, and recovery calls what the live path calls.
//
// A request's context bounds how long its caller waits. The work goes on, on a deadline
// of its own, and a second request of the same key joins it (package background).
//
// Locks: those of package state.
package podsandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/rootfs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/stats"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/stream"
)

// Options is what a Manager is made of. Those without a word on what their zero value
// means are required.
type Options struct {
	// Paths belong to this manager alone; the caller holds a lock.
	Paths layout.Paths

	Engines engine.Handlers // that run the pods

	Images *image.Store
	CNI    network.Network

	// Devices finds the CDI devices that containers name.
	Devices cdi.Devices

	// Plugins are told of pods and containers, and may adjust these. The caller
	// stops them. Nil means none.
	Plugins *nri.Plugins

	// Files say where what containers write goes.
	Files rootfs.Options

	// RemoveLeftovers removes what no record owns; see package leftovers. It is called
	// after the start, in the background, and again after errors. Nil means that
	// nobody does.
	RemoveLeftovers func(context.Context) error

	// SeccompRoot is where relative names of localhost profiles are looked up.
	SeccompRoot string

	// SandboxTimeout bounds the boot of a sandbox, and each call to one. Zero is 30 s.
	SandboxTimeout time.Duration
}

// timeouts bound the work of one operation, each on its own clock.
type timeouts struct {
	network time.Duration // what the network takes at most for one pod; it sees to that itself
	sandbox time.Duration // boot, or one call to a sandbox
}

// operation bounds a whole flow: its network and sandbox steps, with room for
// the steps between them.
func (t timeouts) operation() time.Duration { return t.network + t.sandbox + 10*time.Second }

// kill is how long a container may take to end after SIGKILL. That takes milliseconds,
// and more where the pod has little of a processor.
func (t timeouts) kill() time.Duration { return min(10*time.Second, t.sandbox) }

const defaultSandboxTimeout = 30 * time.Second

// closePatience is how long Close waits for work that it has ended.
const closePatience = 10 * time.Second

// Manager owns the pods and containers of a node. All methods are safe for concurrent
// use. The exported fields serve what is no step of a life; they are not to be changed.
type Manager struct {
	State     *state.Registry
	Streams   *stream.Service
	Stats     *stats.Collector
	Resources *resources.Controller

	opts     Options
	timeouts timeouts
	paths    layout.Paths
	files    *rootfs.Builder
	host     *podHost
	specs    *specMaker
	bootID   string
	work     *background.Group
}

// New takes the records of opts.Paths. Recover must be called next.
func New(opts Options) (*Manager, error) {
	limits := timeouts{network: opts.CNI.Timeout(), sandbox: cmp.Or(opts.SandboxTimeout, defaultSandboxTimeout)}
	if err := opts.Paths.Make(); err != nil {
		return nil, err
	}
	bootID, err := readBootID()
	if err != nil {
		return nil, err
	}
	pods, err := state.Open(opts.Paths)
	if err != nil {
		return nil, err
	}
	work := background.New()
	control := resources.New(pods, work, opts.Engines, opts.Plugins, limits.sandbox)
	files := rootfs.New(opts.Images, opts.Paths, opts.Files)
	return &Manager{
		State:     pods,
		Streams:   stream.New(pods, work, opts.Paths, limits.sandbox),
		Stats:     stats.New(pods, work, control, opts.Images),
		Resources: control,
		opts:      opts, timeouts: limits, paths: opts.Paths, files: files, bootID: bootID, work: work,
		host: &podHost{
			engines: opts.Engines, cni: opts.CNI, node: network.Host{}, resources: control, paths: opts.Paths, timeouts: limits,
		},
		specs: &specMaker{
			pods: pods, engines: opts.Engines, files: files, paths: opts.Paths, devices: opts.Devices, plugins: opts.Plugins, resources: control, seccompRoot: opts.SeccompRoot,
		},
	}, nil
}

// readBootID names the running kernel's boot; proc(5), /proc/sys/kernel/random.
func readBootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Close lets go of everything and ends nothing: pods keep running, logs stop at a batch
// border, what is under way is cut off, and the next daemon goes on from the records.
// After an error work may still use the image store.
func (m *Manager) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	m.State.Close()
	errs := []error{m.work.Close(ctx)}
	for _, c := range m.State.Containers() {
		errs = append(errs, c.CloseStreams())
	}
	return errors.Join(errs...)
}

// Handlers are the runtime handlers that are configured, sorted.
func (m *Manager) Handlers() []string { return m.opts.Engines.Names() }

// join does an operation once for all callers of the same key at a time, and bounds
// their wait by their own contexts.
func (m *Manager) join(ctx context.Context, key string, operation func(context.Context) error) error {
	_, err := background.Join(ctx, m.work, key, m.timeouts.operation(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, operation(ctx)
	})
	return err
}

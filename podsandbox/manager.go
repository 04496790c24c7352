// Package podsandbox owns the pods and containers of a node: it runs, stops and
// removes them, keeps their records true, and finds them again after a restart.
// It knows neither gRPC (package cri) nor how a sandbox works (an engine), how
// an address is given (package network) or where a layer lies (package image).
//
// Every operation goes one way:
//
//	request → record the intent → act → record the result → event
//
// A disk that cannot be written to refuses what is new. What ends, or is to end, ends
// and is told all the same, and is recorded afterwards (record.Note).
//
// What an operation did is undone, or taken up again, from the record alone, so
// a daemon that was killed at any instruction and a request that failed meet in
// the same code: abandon, release and discard are idempotent, and recovery calls
// what the live path calls.
//
// A request's context bounds how long its caller waits. The work goes on, on a
// deadline of its own, and a second request of the same key joins it.
//
// Locks: Manager.mu guards the maps; pod.mu and container.mu guard their
// handles. They are taken in this order, held for map and field access only, and
// never across a call of the engine, the network, the image store or the disk.
// pod.telling comes before them; it is held over the write of one record and the
// event that tells of it.
//
// Files below Options.State: pods/<id>/ (see paths.go) and netns/<id>. Files
// below Options.Root: pods/ (package record).
package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
)

// Options is what a Manager is made of. Those without a word on
// what their zero value means are required.
type Options struct {
	// Root and State belong to this manager alone; the caller holds a lock.
	Root  string // outlives a reboot
	State string // does not

	Engine engine.Engine
	Images *image.Store
	CNI    network.Network

	// Handlers are the runtime handlers that the engine serves; "" is one.
	Handlers []string

	// Devices finds the CDI devices that containers name.
	Devices cdi.Devices

	// PrivilegedInSandbox takes privileged pods and gives their containers all
	// that there is inside the sandbox. Else they are refused.
	PrivilegedInSandbox bool

	// Plugins are told of pods and containers, and may adjust these. The caller
	// stops them. Nil means none.
	Plugins *nri.Plugins

	// Layers say where what containers write goes.
	Layers LayerOptions

	// HostSockets are paths of the host, absolute. A container with a mount of one, or
	// of what lies in it, may connect to the Unix sockets in its mounts.
	HostSockets []string

	// SeccompRoot is where relative names of localhost profiles are looked up.
	SeccompRoot string

	Timeouts Timeouts
}

// Timeouts bound the work of one operation, each on its own clock. Zero means
// the default.
type Timeouts struct {
	Network time.Duration // one CNI ADD or DEL; default 60 s
	Sandbox time.Duration // boot, or one call to a sandbox; default 30 s
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Network == 0 {
		t.Network = 60 * time.Second
	}
	if t.Sandbox == 0 {
		t.Sandbox = 30 * time.Second
	}
	return t
}

// operation bounds a whole flow: its network and sandbox steps, with room for
// the steps between them.
func (t Timeouts) operation() time.Duration { return t.Network + t.Sandbox + 10*time.Second }

// Manager owns the pods and containers of a node. All methods are safe for
// concurrent use.
type Manager struct {
	opts    Options
	paths   paths
	records *record.Store
	host    network.Network // for pods on the host's network
	bootID  string
	events  *broadcaster
	flights singleflight.Group
	stats   collector

	// life ends when the manager closes: parked waits and watchers end with it.
	life  context.Context
	close context.CancelFunc
	tasks sync.WaitGroup

	mu         sync.RWMutex
	pods       map[string]*pod
	containers map[string]*container
	podNames   map[string]*pod       // by podKey
	ctrNames   map[string]*container // by containerKey
}

// New takes the records of root. Recover must be called next.
func New(opts Options) (*Manager, error) {
	opts.Timeouts = opts.Timeouts.withDefaults()
	p := paths{root: opts.Root, state: opts.State}
	if err := p.make(); err != nil {
		return nil, err
	}
	bootID, err := readBootID()
	if err != nil {
		return nil, err
	}
	records, err := record.Open(p.records())
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	m := &Manager{
		opts: opts, paths: p, records: records, bootID: bootID,
		host: network.Host{}, events: newBroadcaster(), life: life, close: cancel,
		pods: map[string]*pod{}, containers: map[string]*container{},
		podNames: map[string]*pod{}, ctrNames: map[string]*container{},
	}
	m.stats.manager = m
	return m, nil
}

// Close lets go of everything and ends nothing: pods keep running, logs stop at
// a batch border, and the next daemon goes on from the records.
func (m *Manager) Close() error {
	m.close()
	m.events.close()
	m.tasks.Wait()
	var errs []error
	for _, c := range m.allContainers() {
		errs = append(errs, c.closeStreams())
	}
	return errors.Join(errs...)
}

// goTask runs f until the manager closes.
func (m *Manager) goTask(f func()) {
	m.tasks.Add(1)
	go func() {
		defer m.tasks.Done()
		f()
	}()
}

// persist does once more what failed, less and less often, until it succeeds or the
// manager is closed. It is for what nobody else asks for again: whoever had asked
// got an error, or nobody had.
func (m *Manager) persist(again func(context.Context) error) {
	m.goTask(func() {
		const longest = time.Minute
		for pause := time.Second; ; pause = min(2*pause, longest) {
			select {
			case <-m.life.Done():
				return
			case <-time.After(pause):
			}
			ctx, cancel := context.WithTimeout(m.life, m.opts.Timeouts.operation())
			err := again(ctx)
			cancel()
			if err == nil {
				return
			}
			klog.V(2).InfoS("It failed again, and will be tried once more", "err", err)
		}
	})
}

// join runs work once for all callers of the same key and bounds their wait by
// their own context. The work has its own deadline and outlives them.
func join[T any](ctx context.Context, m *Manager, key string, limit time.Duration, work func(context.Context) (T, error)) (T, error) {
	ch := m.flights.DoChan(key, func() (any, error) {
		workCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return guarded(workCtx, work)
	})
	select {
	case res := <-ch:
		v, _ := res.Val.(T)
		return v, res.Err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// guarded turns a panic of work into an error: it would end the daemon, since the
// work runs on no request's goroutine.
func guarded[T any](ctx context.Context, work func(context.Context) (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			klog.ErrorS(nil, "Panic in an operation", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("the operation panicked; the log of the daemon has the stack: %v", r)
		}
	}()
	return work(ctx)
}

// cleanupContext is for undoing: it ignores that the request is over, and ends
// by itself.
func cleanupContext(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

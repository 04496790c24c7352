// Package nri owns the Node Resource Interface: programs of the operator that are
// told of every pod and container, may adjust a container before it is created,
// and may change the resources of others. It owns the socket that they connect
// to, the programs that are started from a directory, and what crosses over to them.
// It knows neither records nor sandboxes; Callbacks reach those who do.
//
// What is promised to a plugin:
//
//   - it knows every pod and container exactly once: from Synchronize, when the
//     event that made it known was before its registration, else from that event;
//   - events of one container arrive in the order of its life, its end is told once,
//     and a pod's end after the ends of its containers;
//   - an error that it returns fails the request (of events that tell an end, it is
//     logged). A plugin that does not answer within the time-out, or goes away, is
//     disconnected and the request goes on, unless its failure policy differs.
//
// The library asks one plugin at a time, for all pods: a plugin that hangs holds up
// the others' requests for its time-out, once. Registration is kept out for the
// length of one event, never for that of a pod's network or boot.
//
// Locks: the library's, see relay. No method may be called from within List.
package nri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Where plugins expect things, and how long they may take.
const (
	DefaultSocket              = adaptation.DefaultSocketPath
	DefaultPluginDir           = adaptation.DefaultPluginPath
	DefaultConfigDir           = adaptation.DefaultPluginConfigPath
	DefaultRegistrationTimeout = adaptation.DefaultPluginRegistrationTimeout
	DefaultRequestTimeout      = adaptation.DefaultPluginRequestTimeout
)

// Options says where plugins are and how long they may take. All are required.
type Options struct {
	Version   string // of the daemon
	Socket    string // path; plugins that were started by others connect to it
	PluginDir string // programs NN-NAME, started with the daemon; may be absent
	ConfigDir string // their configurations, NN-NAME.conf or NAME.conf; may be absent

	RegistrationTimeout time.Duration
	RequestTimeout      time.Duration

	// Status gives an error the code that a plugin is told of it.
	Status func(error) error
}

// Callbacks reach the owner of pods. They may be called at any time between Start
// and Stop, from several goroutines, also while an event is told.
type Callbacks struct {
	// List returns all pods, and all containers that have not ended.
	List func() ([]Pod, []Container)
	// Update changes what a container may use; zero fields stay. No event comes of it.
	Update func(ctx context.Context, id string, change *runtimeapi.LinuxContainerResources) error
	// Evict ends a container at once, for a reason for people.
	Evict func(ctx context.Context, id, reason string) error
	// Inject applies CDI devices to a spec.
	Inject func(s *specs.Spec, names []string) error
}

// Plugins are all plugins of the node. A nil *Plugins has none, and every event is
// told to nobody. Methods are safe for concurrent use.
type Plugins struct {
	opts    Options
	library *adaptation.Adaptation
	calls   Callbacks // set by Start

	mu sync.Mutex
	// known are the ids that plugins were told of.
	known map[string]bool // +checklocks:mu
}

// New makes the plugins of a daemon; none runs before Start. The time-outs are the
// library's, and so the process's.
func New(opts Options) (*Plugins, error) {
	useLog()
	adaptation.SetPluginRegistrationTimeout(opts.RegistrationTimeout)
	adaptation.SetPluginRequestTimeout(opts.RequestTimeout)
	p := &Plugins{opts: opts, known: map[string]bool{}}
	var err error
	p.library, err = adaptation.New("cri-sandbox", opts.Version, p.synchronize, p.updateFromPlugin,
		adaptation.WithSocketPath(stagedSocket(opts.Socket)),
		adaptation.WithPluginPath(opts.PluginDir),
		adaptation.WithPluginConfigPath(opts.ConfigDir),
		adaptation.WithTTRPCOptions(
			[]ttrpc.ClientOpts{ttrpc.WithUnaryClientInterceptor(collectEvictions)},
			[]ttrpc.ServerOpt{ttrpc.WithUnaryServerInterceptor(p.serve)},
		),
	)
	if err != nil {
		return nil, fmt.Errorf("set up NRI: %w", err)
	}
	return p, nil
}

// Start starts the programs of the plugin directory, tells them what there is, and
// opens the socket. A program that fails is logged and left out; a name in the
// directory that is none of a plugin is an error, as is a socket that another process
// listens on (errdefs.ErrFailedPrecondition).
func (p *Plugins) Start(calls Callbacks) error {
	if p == nil {
		return nil
	}
	p.calls = calls
	pods, containers := calls.List()
	for _, pod := range pods {
		p.setKnown(pod.ID, true)
	}
	for _, c := range containers {
		p.setKnown(c.ID, true)
	}
	if err := prepareSocket(p.opts.Socket); err != nil {
		return fmt.Errorf("start NRI: %w", err)
	}
	if err := p.library.Start(); err != nil {
		return fmt.Errorf("start NRI: %w", err)
	}
	if err := publishSocket(p.opts.Socket); err != nil {
		p.library.Stop()
		return fmt.Errorf("start NRI: %w", err)
	}
	return nil
}

// Stop closes the socket and ends the programs that Start started.
func (p *Plugins) Stop() {
	if p == nil {
		return
	}
	p.library.Stop()
	removeSocket(p.opts.Socket)
}

// relay calls the library with registration kept out, so that what an event makes
// known is either in the list of a new plugin or told to it. It classifies errors.
func (p *Plugins) relay(what string, call func() error) error {
	block := p.library.BlockPluginSync()
	defer block.Unblock()
	err := call()
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("NRI plugins on %s: %w", what, err)
	}
	// Not wrapped: a plugin's error carries a code of its own, which is none of ours.
	return fmt.Errorf("NRI plugins on %s: %v: %w", what, err, errdefs.ErrFailedPrecondition)
}

func (p *Plugins) setKnown(id string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known {
		p.known[id] = true
	} else {
		delete(p.known, id)
	}
}

func (p *Plugins) isKnown(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

package state

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// Pod is a record and the handles of what runs for it. Its methods are safe for
// concurrent use.
type Pod struct {
	*record.Pod

	// NetNS is where its network namespace is pinned; empty on the host's network.
	NetNS string

	// Lost are containers that its sandbox may run and that have no record. Only
	// recovery sets and reads it.
	Lost []string

	// StopNotice is for telling plugins once that it has ended.
	StopNotice sync.Once

	Size Size

	events *broadcaster

	exclusive chan struct{} // filled while it is held; see Exclusive

	order sync.Mutex
	// +checklocks:order
	endPublished bool // subscribers know that its sandbox has ended

	mu sync.Mutex
	// +checklocks:mu
	sandbox engine.Sandbox // nil before boot, and after release
	// +checklocks:mu
	takenOver bool // what an earlier daemon left of it is known
	// +checklocks:mu
	group *cgroup.Group // nil before it was made, and after release
	// +checklocks:mu
	containers map[string]*Container
	// +checklocks:mu
	operations int // on its containers, under way
	// +checklocks:mu
	idle chan struct{} // closed when operations falls to 0; nil when nobody waits
}

// Size serialises what changes the size of a pod's cgroup: its own resources, and the
// coming, going and changing of containers. It is held across writes of records and
// control files, and nothing else.
type Size struct {
	sync.Mutex
	// Limits are what the cgroup has, or nil when that is not known.
	// +checklocks:Mutex
	Limits *cgroup.Limits
}

func newPod(r *record.Pod, events *broadcaster, netns string) *Pod {
	p := &Pod{Pod: r, events: events, containers: map[string]*Container{}, exclusive: make(chan struct{}, 1)}
	if !p.HostNetwork() {
		p.NetNS = netns
	}
	switch p.Phase() {
	case lifecycle.Creating, lifecycle.Ready:
	default:
		p.endPublished = true // whoever lists knows
	}
	return p
}

// ID is the pod's.
func (p *Pod) ID() string { return p.Meta.ID }

// Config is the request. It is not to be changed.
func (p *Pod) Config() *runtimeapi.PodSandboxConfig { return p.Meta.Config.Proto }

// Phase is where in its life it is.
func (p *Pod) Phase() lifecycle.Phase { return p.Status().Phase }

// HostNetwork tells whether the pod shares the node's network namespace.
func (p *Pod) HostNetwork() bool { return spec.HostNetwork(p.Config()) }

// IDs is the mapping of the pod's user namespace; the zero value is none.
func (p *Pod) IDs() idmap.Mapping { return spec.IDs(p.Config()) }

// Exclusive is held by who takes over or ends the pod's sandbox as a whole: one at a
// time. The function that it returns lets go.
func (p *Pod) Exclusive(ctx context.Context) (release func(), _ error) {
	select {
	case p.exclusive <- struct{}{}:
		return func() { <-p.exclusive }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for what is being done with pod %s: %w", p.ID(), context.Cause(ctx))
	}
}

// BeginOperation admits an operation on a container. It holds off the end of a removal,
// not the death of the sandbox: the operation fails then by itself. The function that it
// returns ends the operation.
func (p *Pod) BeginOperation() (engine.Sandbox, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ph := p.Phase(); ph != lifecycle.Ready {
		return nil, nil, fmt.Errorf("pod %s is not ready (%s): %w", p.ID(), ph, errdefs.ErrFailedPrecondition)
	}
	if !p.takenOver || p.sandbox == nil {
		return nil, nil, p.errTakingOver()
	}
	p.operations++
	return p.sandbox, p.endOperation, nil
}

func (p *Pod) errTakingOver() error {
	return fmt.Errorf("pod %s is still being taken over from an earlier daemon, try again: %w", p.ID(), errdefs.ErrUnavailable)
}

// RequireTakenOver is errdefs.ErrUnavailable while it is not known what an earlier daemon
// left of a ready pod.
func (p *Pod) RequireTakenOver() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.takenOver && p.Phase() == lifecycle.Ready {
		return p.errTakingOver()
	}
	return nil
}

// TakenOver says that the sandbox and the containers of a pod of an earlier daemon are
// known.
func (p *Pod) TakenOver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takenOver = true
}

func (p *Pod) endOperation() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.operations--; p.operations == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// WaitIdle returns when no operation on a container is under way. The pod's phase must be
// one that admits no new one.
func (p *Pod) WaitIdle(ctx context.Context) error {
	p.mu.Lock()
	if p.operations == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for operations on containers of pod %s: %w", p.ID(), context.Cause(ctx))
	}
}

// SetSandbox says which sandbox runs for it; nil for none.
func (p *Pod) SetSandbox(s engine.Sandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sandbox = s
}

// Sandbox is what runs for it; nil before the boot, after the end, and while it is still
// being taken over from an earlier daemon.
func (p *Pod) Sandbox() engine.Sandbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sandbox
}

// SetGroup says which cgroup it has; nil for none.
func (p *Pod) SetGroup(g *cgroup.Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.group = g
}

// Group is its cgroup, or nil.
func (p *Pod) Group() *cgroup.Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.group
}

// Containers are the pod's, in no order.
func (p *Pod) Containers() []*Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	cs := make([]*Container, 0, len(p.containers))
	for _, c := range p.containers {
		cs = append(cs, c)
	}
	return cs
}

func (p *Pod) addContainer(c *Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers[c.ID()] = c
}

func (p *Pod) dropContainer(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.containers, id)
}

// PodName is what CRI calls the unique identity of a sandbox.
func PodName(md *runtimeapi.PodSandboxMetadata) string {
	return fmt.Sprintf("%s/%s/%s/%d", md.GetNamespace(), md.GetName(), md.GetUid(), md.GetAttempt())
}

package podsandbox

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// pod is a record and the handles of what runs for it.
type pod struct {
	*record.Pod

	mu         sync.Mutex
	sandbox    engine.Sandbox // nil before boot, and after release
	group      *cgroup.Group  // nil before it was made, and after release
	containers map[string]*container
	users      int           // container operations under way
	idle       chan struct{} // closed when users falls to 0; nil when nobody waits
	watched    bool          // somebody watches the memory of the containers

	stopTold sync.Once  // plugins were told of its end
	telling  sync.Mutex // held over the write of a record and its event, see tell
	endTold  bool       // guarded by telling; subscribers know that its sandbox ended

	lost []string // containers that it may run and that have no record; for Recover alone

	look chan struct{} // makes him look at once
	size groupSize
}

func newPod(r *record.Pod) *pod {
	p := &pod{Pod: r, containers: map[string]*container{}, look: make(chan struct{}, 1)}
	switch p.phase() {
	case lifecycle.Creating, lifecycle.Ready:
	default:
		p.endTold = true // whoever lists knows
	}
	return p
}

func (p *pod) id() string                           { return p.Meta.ID }
func (p *pod) config() *runtimeapi.PodSandboxConfig { return p.Meta.Config.Proto }
func (p *pod) phase() lifecycle.Phase               { return p.Status().Phase }

// apply moves the pod along its life cycle, on disk and then in memory.
func (p *pod) apply(ev lifecycle.Event, change func(*record.PodStatus)) error {
	_, err := p.Update(p.step(ev, change))
	return err
}

// note is apply for what no disk can hold up: after record.ErrUnsaved the pod has
// moved in memory.
func (p *pod) note(ev lifecycle.Event, change func(*record.PodStatus)) error {
	return p.Note(p.step(ev, change))
}

func (p *pod) step(ev lifecycle.Event, change func(*record.PodStatus)) func(*record.PodStatus) error {
	return func(st *record.PodStatus) error {
		next, err := lifecycle.Pod.Next(st.Phase, ev)
		if err != nil {
			return fmt.Errorf("pod %s: %w", p.id(), err)
		}
		st.Phase = next
		if change != nil {
			change(st)
		}
		return nil
	}
}

// enter admits a container operation. It holds off the end of a removal, not the
// death of the sandbox: the operation fails then by itself.
func (p *pod) enter() (engine.Sandbox, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ph := p.phase(); ph != lifecycle.Ready || p.sandbox == nil {
		return nil, nil, fmt.Errorf("pod %s is not ready (%s): %w", p.id(), ph, errdefs.ErrFailedPrecondition)
	}
	p.users++
	return p.sandbox, p.leave, nil
}

func (p *pod) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// waitIdle returns when no container operation is under way. The pod's phase
// must be one that admits no new one.
func (p *pod) waitIdle(ctx context.Context) error {
	p.mu.Lock()
	if p.users == 0 {
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
		return fmt.Errorf("wait for container operations of pod %s: %w", p.id(), context.Cause(ctx))
	}
}

func (p *pod) setSandbox(s engine.Sandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sandbox = s
}

func (p *pod) getSandbox() engine.Sandbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sandbox
}

func (p *pod) setGroup(g *cgroup.Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.group = g
}

func (p *pod) getGroup() *cgroup.Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.group
}

// members are the pod's containers, in no order.
func (p *pod) members() []*container {
	p.mu.Lock()
	defer p.mu.Unlock()
	cs := make([]*container, 0, len(p.containers))
	for _, c := range p.containers {
		cs = append(cs, c)
	}
	return cs
}

// hostNetwork tells whether the pod shares the node's network namespace.
func (p *pod) hostNetwork() bool { return spec.HostNetwork(p.config()) }

// ids is the mapping of the pod's user namespace; the zero value is none.
func (p *pod) ids() idmap.Mapping { return spec.IDs(p.config()) }

// podKey is what CRI calls the unique identity of a sandbox.
func podKey(md *runtimeapi.PodSandboxMetadata) string {
	return fmt.Sprintf("%s/%s/%s/%d", md.GetNamespace(), md.GetName(), md.GetUid(), md.GetAttempt())
}

// networkOf chooses the pod's network.
func (m *Manager) networkOf(p *pod) network.Network {
	if p.hostNetwork() {
		return m.host
	}
	return m.opts.CNI
}

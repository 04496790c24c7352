package podsandbox

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// groupSize serialises what changes the size of a pod's cgroup: its own
// resources, and the coming, going and changing of containers. Its mutex is held
// across writes of records and control files, and nothing else; it is taken
// before all other locks.
type groupSize struct {
	mu sync.Mutex
	// set is what the cgroup has, or nil when that is not known.
	set *cgroup.Limits // guarded by mu
}

// resources are the container's as they were updated last; nil when the request
// had none. The caller must not change them.
func (c *container) resources() *runtimeapi.LinuxContainerResources {
	return c.resourcesOf(c.Status())
}

func (c *container) resourcesOf(st record.ContainerStatus) *runtimeapi.LinuxContainerResources {
	if st.Resources != nil {
		return st.Resources.Proto
	}
	return c.config().GetLinux().GetResources()
}

// limits are those of the pod's cgroup, by its record and its containers'.
func (p *pod) limits() cgroup.Limits {
	st, linux := p.Status(), p.config().GetLinux()
	resources, overhead := linux.GetResources(), linux.GetOverhead()
	if st.Resources != nil {
		resources = st.Resources.Proto
	}
	if st.Overhead != nil {
		overhead = st.Overhead.Proto
	}
	var members []*runtimeapi.LinuxContainerResources
	for _, c := range p.members() {
		switch c.phase() {
		case lifecycle.Creating, lifecycle.Created, lifecycle.Starting, lifecycle.Running:
			members = append(members, c.resources())
		}
	}
	return podLimits(resources, overhead, members, p.above())
}

func (p *pod) above() above {
	cfg := p.config()
	up := above{podsOwn: isPodsOwn(cfg.GetLinux().GetCgroupParent(), cfg.GetMetadata().GetUid())}
	if g := p.getGroup(); g != nil {
		up.parent.memory, up.parent.quota, up.parent.period = g.ParentLimits()
		up.ceiling.memory, up.ceiling.quota, up.ceiling.period = g.Ceiling()
	}
	return up
}

// shownLimits are limits, and where those have none, what the parent's cgroup has:
// where it is the pod's own, it is the pod's limit.
func (p *pod) shownLimits() cgroup.Limits {
	l, parent := p.limits(), p.above().parent
	if l.MemoryBytes <= 0 && parent.memory > 0 {
		l.MemoryBytes = parent.memory
	}
	if l.CPUQuota <= 0 && parent.quota > 0 {
		l.CPUQuota, l.CPUPeriod = parent.quota, parent.period
	}
	return l
}

// fitGroup gives the pod's cgroup the limits that its record and its containers'
// ask for. What the pod uses already is not taken from it: that is
// errdefs.ErrFailedPrecondition, and nothing has changed.
func (m *Manager) fitGroup(p *pod) error {
	p.size.mu.Lock()
	defer p.size.mu.Unlock()
	return p.fitGroupLocked()
}

func (p *pod) fitGroupLocked() error {
	g := p.getGroup()
	want := p.limits()
	if g == nil || p.size.set != nil && reflect.DeepEqual(*p.size.set, want) {
		return nil
	}
	// cgroup v2 would end processes, v1 refuse.
	if want.MemoryBytes > 0 {
		used, err := g.Stats()
		if err != nil {
			return err
		}
		if used.WorkingSet > uint64(want.MemoryBytes) {
			return fmt.Errorf("the pod uses %d bytes of memory, more than a limit of %d: %w", used.WorkingSet, want.MemoryBytes, errdefs.ErrFailedPrecondition)
		}
	}
	p.size.set = nil // a failure leaves some of them
	err := g.Update(want)
	if again := p.limits(); errdefs.IsInvalidArgument(err) && !reflect.DeepEqual(again, want) {
		want = again // what is above has changed meanwhile
		err = g.Update(want)
	}
	if err != nil {
		return err
	}
	p.size.set = &want
	return nil
}

// shrinkGroup is fitGroup after a container has gone, or a daemon. That the
// limits cannot be lowered yet ends no request; the next change tries again.
func (m *Manager) shrinkGroup(p *pod) {
	if p.phase() != lifecycle.Ready {
		return // the cgroup goes with the pod
	}
	if err := m.fitGroup(p); err != nil {
		klog.V(2).InfoS("Lower the limits of a pod", "pod", p.id(), "err", err)
	}
}

// UpdateContainerResources changes what a container may use, from the moment it
// returns: the pod's cgroup follows, the memory watch knows the new limit, and the
// container sees it.
// Fields that are zero stay as they are. Memory that the container uses already
// is not taken from it (errdefs.ErrFailedPrecondition); after an error everything
// is as before. The size of the machine that a sandbox shows never changes.
func (m *Manager) UpdateContainerResources(ctx context.Context, id string, change *runtimeapi.LinuxContainerResources) error {
	c, err := m.findContainer(id)
	if err != nil {
		return err
	}
	if err := spec.ValidateUpdate("container resources", change); err != nil {
		return err
	}
	err = m.detached(ctx, m.opts.Timeouts.Sandbox, func(ctx context.Context) error {
		change, err := m.askPluginsToUpdate(ctx, c, change)
		if err != nil {
			return err
		}
		if err := m.updateContainer(ctx, c, change); err != nil {
			return err
		}
		m.tellAfter(ctx, m.opts.Plugins.ContainerUpdated, c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.id(), err)
	}
	return nil
}

func (m *Manager) updateContainer(ctx context.Context, c *container, change *runtimeapi.LinuxContainerResources) error {
	sandbox, leave, err := c.pod.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := m.roomInContainer(ctx, c, change.GetMemoryLimitInBytes()); err != nil {
		return err
	}
	c.updating.Lock()
	defer c.updating.Unlock()
	before, err := c.resize(change)
	if err != nil {
		return err
	}
	if err := showLimits(ctx, c, sandbox); err != nil {
		berr := c.putBack(before)
		if berr == nil { // it may see a part of them
			berr = showLimits(ctx, c, sandbox)
		}
		if berr != nil {
			klog.ErrorS(berr, "Take back resources that could not be shown", "container", c.id())
		}
		return err
	}
	adjustOOMScore(c.pod, sandbox)
	m.watchMemory(c.pod)
	return nil
}

// roomInContainer tells whether a running container fits into a memory limit.
func (m *Manager) roomInContainer(ctx context.Context, c *container, limit int64) error {
	if limit <= 0 || c.phase() != lifecycle.Running {
		return nil
	}
	use, err := c.pod.getSandbox().Stats(ctx)
	if err != nil {
		return err
	}
	if u := use[c.id()]; u.MemoryBytes > uint64(limit) {
		return fmt.Errorf("it uses %d bytes of memory, more than a limit of %d: %w", u.MemoryBytes, limit, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// showLimits lets a container see its limits as they are now. One that has not
// started sees them then.
func showLimits(ctx context.Context, c *container, sandbox engine.Sandbox) error {
	switch c.phase() {
	case lifecycle.Starting, lifecycle.Running:
	default:
		return nil
	}
	err := sandbox.SetLimits(ctx, c.id(), spec.Limits(c.resources()))
	if errdefs.IsNotFound(err) { // not there yet, see startInSandbox, or not any more
		return nil
	}
	return err
}

// showAllLimits is showLimits for all containers of an adopted sandbox: an update may
// have been cut off, or they were started by a daemon that did not show any.
func (m *Manager) showAllLimits(p *pod, sandbox engine.Sandbox) {
	for _, c := range p.members() {
		if c.resources() == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(m.life, m.opts.Timeouts.Sandbox)
		c.updating.Lock()
		err := showLimits(ctx, c, sandbox)
		c.updating.Unlock()
		cancel()
		if err != nil {
			klog.ErrorS(err, "Show a container its limits", "container", c.id())
		}
		if errdefs.IsUnavailable(err) || m.life.Err() != nil {
			return
		}
	}
}

// resize records the change and lets the pod's cgroup follow, or takes both back. It
// returns what was recorded before.
func (c *container) resize(change *runtimeapi.LinuxContainerResources) (before recorded, _ error) {
	p := c.pod
	p.size.mu.Lock()
	defer p.size.mu.Unlock()
	before = c.Status().Resources
	_, err := c.Update(func(st *record.ContainerStatus) error {
		if st.Phase == lifecycle.Exited || st.Phase == lifecycle.Removing {
			return fmt.Errorf("it is %s: %w", st.Phase, errdefs.ErrFailedPrecondition)
		}
		st.Resources = &record.Message[*runtimeapi.LinuxContainerResources]{Proto: spec.MergeResources(c.resourcesOf(*st), change)}
		return nil
	})
	if err != nil {
		return before, err
	}
	return before, p.followOr(func() error { return c.record(before) })
}

// putBack is the reverse of resize.
func (c *container) putBack(before recorded) error {
	c.pod.size.mu.Lock()
	defer c.pod.size.mu.Unlock()
	if err := c.record(before); err != nil {
		return err
	}
	return c.pod.fitGroupLocked()
}

func (c *container) record(r recorded) error {
	_, err := c.Update(func(st *record.ContainerStatus) error { st.Resources = r; return nil })
	return err
}

// recorded is what a record has of resources: nil for what was requested.
type recorded = *record.Message[*runtimeapi.LinuxContainerResources]

// UpdatePodSandboxResources changes what is stated for a pod as a whole, and its
// cgroup with it. Fields that are zero stay as they are. Errors as for
// UpdateContainerResources.
func (m *Manager) UpdatePodSandboxResources(ctx context.Context, id string, resources, overhead *runtimeapi.LinuxContainerResources) error {
	p, err := m.findPod(id)
	if err != nil {
		return err
	}
	for what, r := range map[string]*runtimeapi.LinuxContainerResources{"pod resources": resources, "pod overhead": overhead} {
		if err := spec.ValidateUpdate(what, r); err != nil {
			return err
		}
	}
	err = m.detached(ctx, m.opts.Timeouts.Sandbox, func(ctx context.Context) error {
		_, leave, err := p.enter()
		if err != nil {
			return err
		}
		defer leave()
		if err := m.opts.Plugins.UpdatePod(ctx, m.pluginPod(p), resources, overhead); err != nil {
			return err
		}
		if err := p.resize(resources, overhead); err != nil {
			return err
		}
		m.opts.Plugins.PodUpdated(ctx, m.pluginPod(p))
		return nil
	})
	if err != nil {
		return fmt.Errorf("update pod %s: %w", p.id(), err)
	}
	return nil
}

// resize records the change and lets the cgroup follow, or takes both back.
func (p *pod) resize(resources, overhead *runtimeapi.LinuxContainerResources) error {
	p.size.mu.Lock()
	defer p.size.mu.Unlock()
	linux, before := p.config().GetLinux(), p.Status()
	merge := func(now recorded, asked, change *runtimeapi.LinuxContainerResources) recorded {
		if change == nil {
			return now
		}
		if now != nil {
			asked = now.Proto
		}
		return &record.Message[*runtimeapi.LinuxContainerResources]{Proto: spec.MergeResources(asked, change)}
	}
	_, err := p.Update(func(st *record.PodStatus) error {
		st.Resources = merge(st.Resources, linux.GetResources(), resources)
		st.Overhead = merge(st.Overhead, linux.GetOverhead(), overhead)
		return nil
	})
	if err != nil {
		return err
	}
	return p.followOr(func() error {
		_, err := p.Update(func(st *record.PodStatus) error {
			st.Resources, st.Overhead = before.Resources, before.Overhead
			return nil
		})
		return err
	})
}

// followOr makes the cgroup follow the records. When it cannot, the records are
// taken back, and what was changed of the cgroup. p.size.mu is held.
func (p *pod) followOr(takeBack func() error) error {
	err := p.fitGroupLocked()
	if err == nil {
		return nil
	}
	if berr := takeBack(); berr != nil {
		klog.ErrorS(berr, "Take back resources that could not be set", "pod", p.id())
	} else if berr := p.fitGroupLocked(); berr != nil {
		klog.ErrorS(berr, "Take back the limits of a pod", "pod", p.id())
	}
	return fmt.Errorf("resize the pod's cgroup: %w", err)
}

// detached does work that its caller may stop waiting for.
func (m *Manager) detached(ctx context.Context, limit time.Duration, work func(context.Context) error) error {
	done := make(chan error, 1)
	m.goTask(func() {
		ctx, cancel := cleanupContext(ctx, limit)
		defer cancel()
		done <- work(ctx)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package resources

import (
	"fmt"
	"reflect"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// podLimitsOf are those of the pod's cgroup, by its record and its containers'.
func podLimitsOf(p *state.Pod) cgroup.Limits {
	st, linux := p.Status(), p.Config().GetLinux()
	resources, overhead := linux.GetResources(), linux.GetOverhead()
	if st.Resources != nil {
		resources = st.Resources.Proto
	}
	if st.Overhead != nil {
		overhead = st.Overhead.Proto
	}
	var members []*runtimeapi.LinuxContainerResources
	for _, c := range p.Containers() {
		switch c.Phase() {
		case lifecycle.Creating, lifecycle.Created, lifecycle.Starting, lifecycle.Running:
			members = append(members, c.Resources())
		}
	}
	return podLimits(resources, overhead, members, aboveOf(p))
}

func aboveOf(p *state.Pod) above {
	cfg := p.Config()
	up := above{podsOwn: isPodsOwn(cfg.GetLinux().GetCgroupParent(), cfg.GetMetadata().GetUid())}
	if g := p.Group(); g != nil {
		up.parent.memory, up.parent.quota, up.parent.period = g.ParentLimits()
		up.ceiling.memory, up.ceiling.quota, up.ceiling.period = g.Ceiling()
	}
	return up
}

// Limits are what a pod's cgroup should have.
func Limits(p *state.Pod) cgroup.Limits { return podLimitsOf(p) }

// ShownLimits are Limits, and where those have none, what the parent's cgroup has: where
// it is the pod's own, it is the pod's limit.
func ShownLimits(p *state.Pod) cgroup.Limits {
	l, parent := podLimitsOf(p), aboveOf(p).parent
	if l.MemoryBytes <= 0 && parent.memory > 0 {
		l.MemoryBytes = parent.memory
	}
	if l.CPUQuota <= 0 && parent.quota > 0 {
		l.CPUQuota, l.CPUPeriod = parent.quota, parent.period
	}
	return l
}

// Fit gives the pod's cgroup the limits that its record and its containers'
// ask for. What the pod uses already is not taken from it: that is
// errdefs.ErrFailedPrecondition, and nothing has changed.
func (r *Controller) Fit(p *state.Pod) error {
	p.Size.Lock()
	defer p.Size.Unlock()
	return fitLocked(p)
}

// +checklocks:p.Size.Mutex
func fitLocked(p *state.Pod) error {
	g := p.Group()
	want := podLimitsOf(p)
	if g == nil || p.Size.Limits != nil && reflect.DeepEqual(*p.Size.Limits, want) {
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
	p.Size.Limits = nil // a failure leaves some of them
	err := g.Update(want)
	if again := podLimitsOf(p); errdefs.IsInvalidArgument(err) && !reflect.DeepEqual(again, want) {
		want = again // what is above has changed meanwhile
		err = g.Update(want)
	}
	if err != nil {
		return err
	}
	p.Size.Limits = &want
	return nil
}

// Shrink is Fit after a container has gone, or a daemon. That the
// limits cannot be lowered yet ends no request; the next change tries again.
func (r *Controller) Shrink(p *state.Pod) {
	if p.Phase() != lifecycle.Ready {
		return // the cgroup goes with the pod
	}
	if err := r.Fit(p); err != nil {
		klog.V(2).InfoS("Failed to lower the limits of a pod", "pod", p.ID(), "err", err)
	}
}

// followOr makes the cgroup follow the records. When it cannot, the records are
// taken back, and what was changed of the cgroup.
//
// +checklocks:p.Size.Mutex
func followOr(p *state.Pod, takeBack func() error) error {
	err := fitLocked(p)
	if err == nil {
		return nil
	}
	if berr := takeBack(); berr != nil {
		klog.ErrorS(berr, "Failed to take back resources that could not be set", "pod", p.ID())
	} else if berr := fitLocked(p); berr != nil {
		klog.ErrorS(berr, "Failed to take back the limits of a pod", "pod", p.ID())
	}
	return fmt.Errorf("resize the pod's cgroup: %w", err)
}

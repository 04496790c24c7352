package resources

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// UpdateContainerResources changes what a container may use, from the moment it
// returns: the pod's cgroup follows, the memory watch knows the new limit, and the
// container sees it.
// Fields that are zero stay as they are. Memory that the container uses already
// is not taken from it (errdefs.ErrFailedPrecondition); after an error everything
// is as before. The size of the machine that a sandbox shows never changes.
func (r *Controller) UpdateContainerResources(ctx context.Context, id string, change *runtimeapi.LinuxContainerResources) error {
	c, err := r.pods.FindContainer(id)
	if err != nil {
		return err
	}
	if err := r.validate(c.Pod, "container resources", change); err != nil {
		return err
	}
	_, err = background.Do(ctx, r.work, "update container "+c.ID(), r.timeout, func(ctx context.Context) (struct{}, error) {
		change, err := r.askPlugins(ctx, c, change)
		if err != nil {
			return struct{}{}, err
		}
		if err := r.update(ctx, c, change); err != nil {
			return struct{}{}, err
		}
		if r.plugins != nil {
			r.plugins.ContainerUpdated(ctx, nri.PodOf(c.Pod), nri.ContainerOf(c, nil))
		}
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.ID(), err)
	}
	return nil
}

func (r *Controller) update(ctx context.Context, c *state.Container, change *runtimeapi.LinuxContainerResources) error {
	sandbox, done, err := c.Pod.BeginOperation()
	if err != nil {
		return err
	}
	defer done()
	if err := roomInContainer(ctx, c, sandbox, change.GetMemoryLimitInBytes()); err != nil {
		return err
	}
	c.Updating.Lock()
	defer c.Updating.Unlock()
	before, err := resizeContainer(c, change)
	if err != nil {
		return err
	}
	if err := Show(ctx, c, sandbox); err != nil {
		berr := putBack(c, before)
		if berr == nil { // it may see a part of them
			berr = Show(ctx, c, sandbox)
		}
		if berr != nil {
			klog.ErrorS(berr, "Failed to take back resources that could not be shown", "container", c.ID())
		}
		return err
	}
	AdjustOOMScore(c.Pod, sandbox)
	r.WatchMemory(c.Pod)
	return nil
}

// roomInContainer tells whether a running container fits into a memory limit.
func roomInContainer(ctx context.Context, c *state.Container, sandbox engine.Sandbox, limit int64) error {
	if limit <= 0 || c.Phase() != lifecycle.Running {
		return nil
	}
	use, err := sandbox.Stats(ctx)
	if err != nil {
		return err
	}
	if u := use[c.ID()]; u.MemoryBytes > uint64(limit) {
		return fmt.Errorf("it uses %d bytes of memory, more than a limit of %d: %w", u.MemoryBytes, limit, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// resizeContainer records the change and lets the pod's cgroup follow, or takes both back. It
// returns what was recorded before.
func resizeContainer(c *state.Container, change *runtimeapi.LinuxContainerResources) (before recorded, _ error) {
	p := c.Pod
	p.Size.Lock()
	defer p.Size.Unlock()
	before = c.Status().Resources
	err := c.Update(func(st *record.ContainerStatus) error {
		if st.Phase == lifecycle.Exited || st.Phase == lifecycle.Removing {
			return fmt.Errorf("it is %s: %w", st.Phase, errdefs.ErrFailedPrecondition)
		}
		st.Resources = &record.Message[*runtimeapi.LinuxContainerResources]{Proto: spec.MergeResources(c.ResourcesIn(*st), change)}
		return nil
	})
	if err != nil {
		return before, err
	}
	return before, followOr(p, func() error { return setResources(c, before) })
}

// putBack is the reverse of resizeContainer.
func putBack(c *state.Container, before recorded) error {
	c.Pod.Size.Lock()
	defer c.Pod.Size.Unlock()
	if err := setResources(c, before); err != nil {
		return err
	}
	return fitLocked(c.Pod)
}

func setResources(c *state.Container, r recorded) error {
	return c.Update(func(st *record.ContainerStatus) error { st.Resources = r; return nil })
}

// recorded is what a record has of resources: nil for what was requested.
type recorded = *record.Message[*runtimeapi.LinuxContainerResources]

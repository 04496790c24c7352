package resources

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// UpdatePodSandboxResources changes what is stated for a pod as a whole, and its
// cgroup with it. Fields that are zero stay as they are. Errors as for
// UpdateContainerResources.
func (r *Controller) UpdatePodSandboxResources(ctx context.Context, id string, resources, overhead *runtimeapi.LinuxContainerResources) error {
	p, err := r.pods.FindPod(id)
	if err != nil {
		return err
	}
	for what, change := range map[string]*runtimeapi.LinuxContainerResources{"pod resources": resources, "pod overhead": overhead} {
		if err := r.validate(p, what, change); err != nil {
			return err
		}
	}
	_, err = background.Do(ctx, r.work, "update pod "+p.ID(), r.timeout, func(ctx context.Context) (struct{}, error) {
		_, done, err := p.BeginOperation()
		if err != nil {
			return struct{}{}, err
		}
		defer done()
		if err := r.plugins.UpdatePod(ctx, nri.PodOf(p), resources, overhead); err != nil {
			return struct{}{}, err
		}
		if err := resizePod(p, resources, overhead); err != nil {
			return struct{}{}, err
		}
		r.plugins.PodUpdated(ctx, nri.PodOf(p))
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("update pod %s: %w", p.ID(), err)
	}
	return nil
}

// resizePod records the change and lets the cgroup follow, or takes both back.
func resizePod(p *state.Pod, resources, overhead *runtimeapi.LinuxContainerResources) error {
	p.Size.Lock()
	defer p.Size.Unlock()
	linux, before := p.Config().GetLinux(), p.Status()
	merge := func(now recorded, asked, change *runtimeapi.LinuxContainerResources) recorded {
		if change == nil {
			return now
		}
		if now != nil {
			asked = now.Proto
		}
		return &record.Message[*runtimeapi.LinuxContainerResources]{Proto: spec.MergeResources(asked, change)}
	}
	err := p.Update(func(st *record.PodStatus) error {
		st.Resources = merge(st.Resources, linux.GetResources(), resources)
		st.Overhead = merge(st.Overhead, linux.GetOverhead(), overhead)
		return nil
	})
	if err != nil {
		return err
	}
	return followOr(p, func() error {
		return p.Update(func(st *record.PodStatus) error {
			st.Resources, st.Overhead = before.Resources, before.Overhead
			return nil
		})
	})
}

package resources

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// changeByPlugins is what their changes are called in errors.
const changeByPlugins = "resources by NRI plugins"

// askPlugins returns what is to be done of a change of resources.
func (r *Controller) askPlugins(ctx context.Context, c *state.Container, change *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error) {
	if r.plugins == nil {
		return change, nil
	}
	change, err := r.plugins.UpdateContainer(ctx, nri.PodOf(c.Pod), nri.ContainerOf(c, nil), change)
	if err != nil {
		return nil, err
	}
	return change, r.validate(c.Pod, changeByPlugins, change)
}

// UpdateForPlugin is an update that a plugin asks for; plugins are not told of it.
func (r *Controller) UpdateForPlugin(ctx context.Context, id string, change *runtimeapi.LinuxContainerResources) error {
	c, err := r.pods.FindContainer(id)
	if err != nil {
		return err
	}
	if err := r.validate(c.Pod, changeByPlugins, change); err != nil {
		return err
	}
	ctx, cancel := r.work.Context(ctx, r.timeout)
	defer cancel()
	return r.update(ctx, c, change)
}

// AdjustByPlugins puts a change by plugins in the place of what was requested for a
// container that is being created.
func (r *Controller) AdjustByPlugins(c *state.Container, s *specs.Spec, change *runtimeapi.LinuxContainerResources) error {
	if err := r.validate(c.Pod, changeByPlugins, change); err != nil {
		return err
	}
	merged := spec.MergeResources(c.Resources(), change)
	s.Linux.Resources = spec.Limits(merged)
	s.Process.OOMScoreAdj = new(int(merged.GetOomScoreAdj()))
	err := c.Update(func(st *record.ContainerStatus) error {
		st.Resources = &record.Message[*runtimeapi.LinuxContainerResources]{Proto: merged}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.Fit(c.Pod); err != nil {
		return fmt.Errorf("resize the pod's cgroup: %w", err)
	}
	return nil
}

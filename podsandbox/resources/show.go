package resources

import (
	"context"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// Show lets a container see its limits as they are now. One that has not started sees
// them then. The caller holds Container.Updating.
func Show(ctx context.Context, c *state.Container, sandbox engine.Sandbox) error {
	switch c.Phase() {
	case lifecycle.Starting, lifecycle.Running:
	default:
		return nil
	}
	err := sandbox.Update(ctx, c.ID(), spec.Limits(c.Resources()))
	if errdefs.IsNotFound(err) { // not there yet, see StartContainer, or not any more
		return nil
	}
	return err
}

// ShowAll is Show for all containers of an adopted sandbox: an update may have been cut
// off, or they were started by a daemon that did not show any.
func (r *Controller) ShowAll(p *state.Pod, sandbox engine.Sandbox) {
	for _, c := range p.Containers() {
		if c.Resources() == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(r.work.Life(), r.timeout)
		c.Updating.Lock()
		err := Show(ctx, c, sandbox)
		c.Updating.Unlock()
		cancel()
		if err != nil {
			klog.ErrorS(err, "Failed to show a container its limits", "container", c.ID())
		}
		if errdefs.IsUnavailable(err) || r.work.Life().Err() != nil {
			return
		}
	}
}

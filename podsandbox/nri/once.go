package nri

import (
	"context"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// ContainerStopped tells of a container's end, once. Who comes second waits for the
// first, so that no removal overtakes it.
func (p *Plugins) ContainerStopped(ctx context.Context, c *state.Container) {
	if p == nil {
		return
	}
	c.StopNotice.Do(func() { p.StopContainer(ctx, PodOf(c.Pod), ContainerOf(c, nil)) })
}

// ContainerRemoved tells that a container goes, also one whose creation failed half way.
func (p *Plugins) ContainerRemoved(ctx context.Context, c *state.Container) {
	if p == nil {
		return
	}
	p.ContainerStopped(ctx, c)
	p.RemoveContainer(ctx, PodOf(c.Pod), ContainerOf(c, nil))
}

// PodStopped tells of a pod's end once, after those of its containers.
func (p *Plugins) PodStopped(ctx context.Context, pod *state.Pod) {
	if p == nil {
		return
	}
	pod.StopNotice.Do(func() {
		for _, c := range pod.Containers() {
			p.ContainerStopped(ctx, c)
		}
		p.StopPod(ctx, PodOf(pod))
	})
}

// Package resources owns what a pod and its containers may use: the limits of the
// pod's cgroup, which follow from its record and its containers', updates of them, the
// watch that ends a container which is over its memory limit, and the score by which the
// kernel picks who is killed when the node is out of memory. The records have what was
// asked for; it keeps nothing of its own that could not be read there.
package resources

import (
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// Controller controls the resources of one daemon's pods. Its methods are safe for
// concurrent use.
type Controller struct {
	pods    *state.Registry
	work    *background.Group
	engines engine.Handlers
	plugins *nri.Plugins
	timeout time.Duration // of one call to a sandbox

	wake chan struct{} // the memory watch, to look at changed; never closed

	mu sync.Mutex
	// changed are pods that the memory watch is to look at at once.
	// +checklocks:mu
	changed map[*state.Pod]struct{}
	// +checklocks:mu
	watching bool // there is a memory watch
	// +checklocks:mu
	peaks map[string]uint64 // by container, see NotePeaks
}

// New makes a controller; its work ends with the daemon. plugins may be nil.
func New(pods *state.Registry, work *background.Group, engines engine.Handlers, plugins *nri.Plugins, timeout time.Duration) *Controller {
	return &Controller{
		pods: pods, work: work, engines: engines, plugins: plugins, timeout: timeout,
		wake: make(chan struct{}, 1), changed: map[*state.Pod]struct{}{}, peaks: map[string]uint64{},
	}
}

// NotePeaks is told of every look at the memory of containers. A sandbox keeps no
// maximum of a container, so what is known of one is the largest use that anybody has
// seen: whoever asks for statistics, and the memory watch, when a container may have
// reached its limit. It begins anew with the daemon.
func (r *Controller) NotePeaks(use map[string]engine.Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, u := range use {
		if _, err := r.pods.FindContainer(id); err == nil { // else nobody would forget it
			r.peaks[id] = max(r.peaks[id], u.MemoryBytes)
		}
	}
}

// Peak is the most memory in bytes that a container was seen to use.
func (r *Controller) Peak(id string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peaks[id]
}

// Forget drops what is known of a container, after it was removed.
func (r *Controller) Forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peaks, id)
}

// validate checks changed resources of what, of a pod or a container: whether they are
// well-formed, and whether the pod's engine can give them.
func (r *Controller) validate(p *state.Pod, what string, change *runtimeapi.LinuxContainerResources) error {
	if err := spec.ValidateUpdate(what, change); err != nil {
		return err
	}
	return r.engines.Validate(p.Meta.Handler, &runtimeapi.PodSandboxConfig{},
		&runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{Resources: change}})
}

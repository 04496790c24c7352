package state

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// Container is a record and the handles of what runs for it. Its methods are safe for
// concurrent use.
type Container struct {
	*record.Container
	Pod *Pod

	// StopNotice is for telling plugins once that it has ended.
	StopNotice sync.Once

	// Updating is held across an update of its resources, the call to the sandbox
	// included, so that updates of this container do not overlap.
	Updating sync.Mutex

	creating chan struct{} // closed when its creation has ended, well or not

	ended     chan struct{} // closed when the status says Exited
	endedOnce sync.Once

	layerOnce sync.Once
	layer     bool // see HasLayer

	mu sync.Mutex
	// +checklocks:mu
	streams *logs.Streams // nil before Created, and after the end
	// +checklocks:mu
	terminal *terminal.Terminal // nil but while one with a terminal runs
	// +checklocks:mu
	stopSignalSent bool
}

// newContainer is for one whose creation has ended, unless it is said to be creating.
func newContainer(p *Pod, r *record.Container, creating bool) *Container {
	c := &Container{Container: r, Pod: p, creating: make(chan struct{}), ended: make(chan struct{})}
	if !creating {
		close(c.creating)
	}
	switch c.Phase() {
	case lifecycle.Exited, lifecycle.Removing:
		c.MarkEnded()
	}
	return c
}

// ID is the container's.
func (c *Container) ID() string { return c.Meta.ID }

// Config is the request. It is not to be changed.
func (c *Container) Config() *runtimeapi.ContainerConfig { return c.Meta.Config.Proto }

// Phase is where in its life it is.
func (c *Container) Phase() lifecycle.Phase { return c.Status().Phase }

// RequireRunning is errdefs.ErrFailedPrecondition unless it runs.
func (c *Container) RequireRunning() error {
	if ph := c.Phase(); ph != lifecycle.Running {
		return fmt.Errorf("container %s is %s, not running: %w", c.ID(), ph, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// CreationEnded is called once, by who creates it.
func (c *Container) CreationEnded() { close(c.creating) }

// AwaitCreation waits while a container is being created: plugins, and who lists while
// they are asked, know its id by then.
func (c *Container) AwaitCreation(ctx context.Context) error {
	select {
	case <-c.creating:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for its creation: %w", context.Cause(ctx))
	}
}

// Ended is closed when its end is told.
func (c *Container) Ended() <-chan struct{} { return c.ended }

// MarkEnded closes Ended. It is idempotent.
func (c *Container) MarkEnded() { c.endedOnce.Do(func() { close(c.ended) }) }

// Resources are those that were updated last; nil when the request had none. They are
// not to be changed.
func (c *Container) Resources() *runtimeapi.LinuxContainerResources {
	return c.ResourcesIn(c.Status())
}

// ResourcesIn is Resources, as of a status of this container.
func (c *Container) ResourcesIn(st record.ContainerStatus) *runtimeapi.LinuxContainerResources {
	if st.Resources != nil {
		return st.Resources.Proto
	}
	return c.Config().GetLinux().GetResources()
}

// HasLayer tells whether what it writes to its root file system is kept in the sandbox.
// It is asked when the container has been created.
func (c *Container) HasLayer() bool {
	c.layerOnce.Do(func() {
		w, err := c.Writes()
		c.layer = err == nil && w.Layers["/"] != (engine.Layer{})
	})
	return c.layer
}

// FirstStopSignal is true once: a program must not see a second stop signal only because
// the caller repeated its request.
func (c *Container) FirstStopSignal() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.stopSignalSent
	c.stopSignalSent = true
	return first
}

// Signal reaches its first process, or all of them; one that has ended meanwhile is no
// error.
func (c *Container) Signal(ctx context.Context, sig unix.Signal, all bool) error {
	sb := c.Pod.Sandbox()
	if sb == nil {
		return c.Pod.RequireTakenOver()
	}
	err := sb.Signal(ctx, c.ID(), int(sig), all)
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		return nil // its wait tells how it ended
	}
	return fmt.Errorf("send %s: %w", unix.SignalName(sig), err)
}

// SetStreams says where its standard streams are.
func (c *Container) SetStreams(s *logs.Streams) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = s
}

// Streams are its standard streams; nil before it was created, and after its end.
func (c *Container) Streams() *logs.Streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

// TakeStreams hands the streams to the one caller that ends them.
func (c *Container) TakeStreams() *logs.Streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams
	c.streams = nil
	return s
}

// SetTerminal says what its terminal is.
func (c *Container) SetTerminal(t *terminal.Terminal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.terminal = t
}

// Terminal is nil but while one with a terminal runs.
func (c *Container) Terminal() *terminal.Terminal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terminal
}

// TakeTerminal hands the terminal to the one caller that ends it.
func (c *Container) TakeTerminal() *terminal.Terminal {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.terminal
	c.terminal = nil
	return t
}

// CloseStreams leaves the streams to the next daemon.
func (c *Container) CloseStreams() error {
	if t := c.TakeTerminal(); t != nil {
		t.Close()
	}
	if s := c.TakeStreams(); s != nil {
		return s.Close()
	}
	return nil
}

// ContainerName is what CRI calls the unique identity of a container in its pod.
func ContainerName(podID string, md *runtimeapi.ContainerMetadata) string {
	return fmt.Sprintf("%s/%s/%d", podID, md.GetName(), md.GetAttempt())
}

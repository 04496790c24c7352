package podsandbox

import (
	"fmt"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// container is a record and the handles of what runs for it.
type container struct {
	*record.Container
	pod *pod

	// made is closed when this daemon has ended its creation, well or not; nil when an
	// earlier one has.
	made chan struct{}

	// ended is closed when the status says Exited.
	ended     chan struct{}
	endedOnce sync.Once
	stopTold  sync.Once // plugins were told of its end

	// updating is held across an update, the call to the sandbox included, so that
	// updates of this container do not overlap. It is taken before all other locks.
	updating sync.Mutex

	layerOnce sync.Once
	layer     bool // see hasLayer

	mu       sync.Mutex
	streams  *logs.Streams      // nil before Created, and after the end
	terminal *terminal.Terminal // nil but while one with a terminal runs
	signaled bool               // the stop signal was sent
}

func newContainer(p *pod, r *record.Container) *container {
	c := &container{Container: r, pod: p, ended: make(chan struct{})}
	if c.phase() == lifecycle.Exited || c.phase() == lifecycle.Removing {
		c.markEnded()
	}
	return c
}

func (c *container) id() string                          { return c.Meta.ID }
func (c *container) config() *runtimeapi.ContainerConfig { return c.Meta.Config.Proto }
func (c *container) phase() lifecycle.Phase              { return c.Status().Phase }
func (c *container) markEnded()                          { c.endedOnce.Do(func() { close(c.ended) }) }

// apply moves the container along its life cycle, on disk and then in memory.
func (c *container) apply(ev lifecycle.Event, change func(*record.ContainerStatus)) error {
	_, err := c.Update(c.step(ev, change))
	return err
}

// note is apply for what no disk can hold up: after record.ErrUnsaved the container
// has moved in memory.
func (c *container) note(ev lifecycle.Event, change func(*record.ContainerStatus)) error {
	return c.Note(c.step(ev, change))
}

func (c *container) step(ev lifecycle.Event, change func(*record.ContainerStatus)) func(*record.ContainerStatus) error {
	return func(st *record.ContainerStatus) error {
		next, err := lifecycle.Container.Next(st.Phase, ev)
		if err != nil {
			return fmt.Errorf("container %s: %w", c.id(), err)
		}
		st.Phase = next
		if change != nil {
			change(st)
		}
		return nil
	}
}

// hasLayer tells whether what it writes to its root file system is kept in the
// sandbox. It is asked when the container has been created.
func (c *container) hasLayer() bool {
	c.layerOnce.Do(func() {
		w, err := c.Writes()
		c.layer = err == nil && w.Layers["/"] != (engine.Layer{})
	})
	return c.layer
}

func (c *container) setStreams(s *logs.Streams) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = s
}

func (c *container) getStreams() *logs.Streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

// takeStreams hands the streams to the one caller that ends them.
func (c *container) takeStreams() *logs.Streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams
	c.streams = nil
	return s
}

// closeStreams leaves the streams to the next daemon.
func (c *container) closeStreams() error {
	if t := c.takeTerminal(); t != nil {
		t.Close()
	}
	if s := c.takeStreams(); s != nil {
		return s.Close()
	}
	return nil
}

// firstStopSignal is true once: a program must not see a second stop signal only
// because the caller repeated its request.
func (c *container) firstStopSignal() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.signaled
	c.signaled = true
	return first
}

// containerKey is what CRI calls the unique identity of a container in its pod.
func containerKey(podID string, md *runtimeapi.ContainerMetadata) string {
	return fmt.Sprintf("%s/%s/%d", podID, md.GetName(), md.GetAttempt())
}

package state

import (
	"errors"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// subject is what goes through a life: a pod, or a container of one.
type subject[S any] struct {
	pod     *Pod
	id      string
	machine lifecycle.Machine
	phase   func(*S) *lifecycle.Phase
	events  map[lifecycle.Event][]runtimeapi.ContainerEventType
}

// What subscribers are told of a transition. A pod's end is told once, see
// Pod.publishEnd.
var (
	podEvents = map[lifecycle.Event][]runtimeapi.ContainerEventType{
		lifecycle.Booted: {runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
		lifecycle.Died:   {runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT},
	}
	containerEvents = map[lifecycle.Event][]runtimeapi.ContainerEventType{
		lifecycle.Prepared: {runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT},
		lifecycle.Started:  {runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
		lifecycle.Ended:    {runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT},
	}
)

func (p *Pod) subject() subject[record.PodStatus] {
	return subject[record.PodStatus]{
		pod: p, id: p.ID(), machine: lifecycle.Pod, events: podEvents,
		phase: func(st *record.PodStatus) *lifecycle.Phase { return &st.Phase },
	}
}

func (c *Container) subject() subject[record.ContainerStatus] {
	return subject[record.ContainerStatus]{
		pod: c.Pod, id: c.ID(), machine: lifecycle.Container, events: containerEvents,
		phase: func(st *record.ContainerStatus) *lifecycle.Phase { return &st.Phase },
	}
}

// transition takes a subject one step along its life. write is record's Update or
// Force; after an error other than record.ErrNotPersisted nothing has changed and nobody
// is told.
func transition[S any](s subject[S], write func(func(*S) error) error, ev lifecycle.Event, change func(*S)) error {
	s.pod.order.Lock()
	defer s.pod.order.Unlock()
	err := write(func(st *S) error {
		phase := s.phase(st)
		next, err := s.machine.Next(*phase, ev)
		if err != nil {
			return err
		}
		*phase = next
		if change != nil {
			change(st)
		}
		return nil
	})
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return fmt.Errorf("%s: %w", s.id, err)
	}
	s.pod.publishLocked(s.id, s.events[ev]...)
	return err
}

// Transition takes the pod along its life: on disk, then in memory, then subscribers are
// told. A step that its phase does not allow is errdefs.ErrFailedPrecondition. change
// may be nil.
func (p *Pod) Transition(ev lifecycle.Event, change func(*record.PodStatus)) error {
	return transition(p.subject(), p.Update, ev, change)
}

// ForceTransition is Transition for what no disk can hold up: after
// record.ErrNotPersisted the pod has moved in memory, and subscribers were told.
func (p *Pod) ForceTransition(ev lifecycle.Event, change func(*record.PodStatus)) error {
	return transition(p.subject(), p.Force, ev, change)
}

// Transition is Pod.Transition, for a container.
func (c *Container) Transition(ev lifecycle.Event, change func(*record.ContainerStatus)) error {
	return transition(c.subject(), c.Update, ev, change)
}

// ForceTransition is Pod.ForceTransition, for a container.
func (c *Container) ForceTransition(ev lifecycle.Event, change func(*record.ContainerStatus)) error {
	return transition(c.subject(), c.Force, ev, change)
}

package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
)

// eventBacklog is how many events a subscriber may lag behind.
const eventBacklog = 4096

// broadcaster hands events to subscribers. What it promises:
//
//   - events of one container, and of one pod, arrive in the order in which their
//     records were written;
//   - every event carries the status of its pod and containers at, or after, the
//     moment it tells of;
//   - a subscriber gets every event from its subscription on, or its stream ends
//     with ResourceExhausted because it lagged; none is dropped silently;
//   - nothing is kept for later: after a restart of the daemon or the stream, the
//     caller lists.
type broadcaster struct {
	mu     sync.Mutex
	subs   map[chan *runtimeapi.ContainerEventResponse]struct{}
	closed bool
}

func newBroadcaster() *broadcaster {
	return &broadcaster{subs: map[chan *runtimeapi.ContainerEventResponse]struct{}{}}
}

func (b *broadcaster) subscribe() (chan *runtimeapi.ContainerEventResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("the daemon is stopping: %w", errdefs.ErrUnavailable)
	}
	ch := make(chan *runtimeapi.ContainerEventResponse, eventBacklog)
	b.subs[ch] = struct{}{}
	return ch, nil
}

func (b *broadcaster) unsubscribe(ch chan *runtimeapi.ContainerEventResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(ch)
}

// drop ends a subscription; b.mu is held.
func (b *broadcaster) drop(ch chan *runtimeapi.ContainerEventResponse) {
	if _, ok := b.subs[ch]; ok {
		delete(b.subs, ch)
		close(ch)
	}
}

// publish makes the event under the lock, so that the order of events is the
// order of the states they carry. Without subscribers nothing is made.
func (b *broadcaster) publish(make func() *runtimeapi.ContainerEventResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subs) == 0 {
		return
	}
	ev := make()
	for ch := range b.subs {
		select {
		case ch <- ev:
		default:
			b.drop(ch)
		}
	}
}

func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		b.drop(ch)
	}
}

// tell writes to a record of the pod or of one of its containers, by change, and
// publishes what that means. Nothing comes between the two, so that the order of
// a pod's events is that of its records. Nothing is published after an error other
// than record.ErrUnsaved, which is returned none the less, nor of a pod that was
// never Ready and is being undone: nobody was told of it.
func (m *Manager) tell(p *pod, id string, what runtimeapi.ContainerEventType, change func() error) error {
	p.telling.Lock()
	defer p.telling.Unlock()
	err := change()
	if err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	if !p.Status().Abandoned {
		m.publish(p, id, what)
	}
	return err
}

// tellEnd is tell for the end of a pod's sandbox, which counts once, whether it died
// or was stopped, or first the one and then the other: for each event of an end the
// kubelet looks through the whole pod.
func (m *Manager) tellEnd(p *pod, change func() error) error {
	p.telling.Lock()
	defer p.telling.Unlock()
	err := change()
	if err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	if !p.endTold && !p.Status().Abandoned {
		m.publish(p, p.id(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	p.endTold = true
	return err
}

// publish tells subscribers what became of a container, or of the pod itself
// when id is the pod's.
func (m *Manager) publish(p *pod, id string, what runtimeapi.ContainerEventType) {
	m.events.publish(func() *runtimeapi.ContainerEventResponse {
		s := snapshot(p)
		return &runtimeapi.ContainerEventResponse{
			ContainerId: id, ContainerEventType: what, CreatedAt: time.Now().UnixNano(),
			PodSandboxStatus: s.Pod, ContainersStatuses: s.Containers,
		}
	})
}

// Events calls send for every event until ctx ends, the manager closes, send
// fails or the subscriber lags. Before it calls subscribed: whoever learns of that
// and lists then misses nothing.
func (m *Manager) Events(ctx context.Context, subscribed func() error, send func(*runtimeapi.ContainerEventResponse) error) error {
	ch, err := m.events.subscribe()
	if err != nil {
		return err
	}
	defer m.events.unsubscribe(ch)
	if err := subscribed(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-ch:
			if !ok {
				if m.life.Err() != nil {
					return fmt.Errorf("the daemon is stopping: %w", errdefs.ErrUnavailable)
				}
				return fmt.Errorf("the stream lagged by %d events, subscribe again and list: %w", eventBacklog, errdefs.ErrResourceExhausted)
			}
			if err := send(ev); err != nil {
				return err
			}
		}
	}
}

package state

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
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
	mu sync.Mutex
	// +checklocks:mu
	subs map[chan *runtimeapi.ContainerEventResponse]struct{}
	// +checklocks:mu
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

// drop ends a subscription.
//
// +checklocks:b.mu
func (b *broadcaster) drop(ch chan *runtimeapi.ContainerEventResponse) {
	if _, ok := b.subs[ch]; ok {
		delete(b.subs, ch)
		close(ch)
	}
}

// publish makes the event under the lock, so that the order of events is the
// order of the states they carry. It is made from memory alone. Without subscribers
// nothing is made.
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

func (b *broadcaster) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		b.drop(ch)
	}
}

// publishLocked tells subscribers what became of the pod, or of a container of it. Of a
// pod that was never Ready and is being undone nobody was told, and nobody is.
//
// +checklocks:p.order
func (p *Pod) publishLocked(id string, events ...runtimeapi.ContainerEventType) {
	for _, what := range events {
		if id == p.ID() && what == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			p.publishEndLocked()
			continue
		}
		if !p.Status().Abandoned {
			p.publish(id, what)
		}
	}
}

// AnnounceEnd tells that the pod's sandbox has ended, if that was not told before:
// whether it died or was stopped, or first the one and then the other. For each event of
// an end the kubelet looks through the whole pod.
func (p *Pod) AnnounceEnd() {
	p.order.Lock()
	defer p.order.Unlock()
	p.publishEndLocked()
}

// +checklocks:p.order
func (p *Pod) publishEndLocked() {
	if !p.endPublished && !p.Status().Abandoned {
		p.publish(p.ID(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	p.endPublished = true
}

func (p *Pod) publish(id string, what runtimeapi.ContainerEventType) {
	p.events.publish(func() *runtimeapi.ContainerEventResponse {
		s := snapshot(p)
		return &runtimeapi.ContainerEventResponse{
			ContainerId: id, ContainerEventType: what, CreatedAt: time.Now().UnixNano(),
			PodSandboxStatus: s.Pod, ContainersStatuses: s.Containers,
		}
	})
}

// Events calls send for every event until ctx ends, the registry closes, send
// fails or the subscriber lags. Before it calls subscribed: whoever learns of that
// and lists then misses nothing.
func (r *Registry) Events(ctx context.Context, subscribed func() error, send func(*runtimeapi.ContainerEventResponse) error) error {
	ch, err := r.events.subscribe()
	if err != nil {
		return err
	}
	defer r.events.unsubscribe(ch)
	if err := subscribed(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-ch:
			if !ok {
				if r.events.isClosed() {
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

package model

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// events are those of one life of the daemon, of pods and containers.
type events struct {
	run    *run
	cancel context.CancelFunc
	ended  chan struct{}

	mu sync.Mutex
	// By id.
	seen map[string][]string // +checklocks:mu
	// The first event that makes no sense.
	odd error // +checklocks:mu
	// What is from before the subscription, and its phase then.
	old map[string]phase
	// Of a container; of a pod itself.
	pod map[string]string // +checklocks:mu
}

// subscribe begins a life.
func (r *run) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.stream(ctx)
	if err != nil {
		cancel()
		return fmt.Errorf("subscribe to events: %w", err)
	}
	e := &events{run: r, cancel: cancel, ended: make(chan struct{}), seen: map[string][]string{}, old: map[string]phase{}, pod: map[string]string{}}
	o, err := r.observe(ctx)
	if err != nil {
		cancel()
		return err
	}
	for i, id := range o.ids.pods {
		e.old[id] = o.state.Pods[i].Phase
		e.expect(id, id)
		for j, c := range o.ids.ctrs[i] {
			e.old[c] = o.state.Pods[i].Ctrs[j].Phase
			e.expect(c, id)
		}
	}
	go func() {
		defer close(e.ended)
		for {
			ev, err := stream.Recv()
			if err != nil {
				return
			}
			e.note(ev)
		}
	}()
	r.events = e
	return nil
}

// stream returns once the subscription stands: from then on no event is missed.
func (r *run) stream(ctx context.Context) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	for deadline := time.Now().Add(r.Patience); ; time.Sleep(time.Millisecond) {
		stream, err := r.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		if err == nil {
			var header metadata.MD
			if header, err = stream.Header(); header != nil {
				return stream, nil
			}
			if err == nil { // Header leaves it to Recv
				_, err = stream.Recv()
			}
		}
		// A connection to the daemon before may only now be found closed.
		if status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// expect is told of what exists, so that a missing event is noticed.
func (e *events) expect(id, pod string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pod[id] = pod
}

func (e *events) note(ev *runtimeapi.ContainerEventResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	what := strings.TrimSuffix(strings.TrimPrefix(ev.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
	e.seen[ev.ContainerId] = append(e.seen[ev.ContainerId], what)
	pod := ev.GetPodSandboxStatus().GetId()
	e.pod[ev.ContainerId] = pod
	switch {
	case e.odd != nil:
	case pod == "" || ev.CreatedAt == 0:
		e.odd = differ("an event without its pod or its time: %v", ev)
	case what == "STOPPED" && pod != ev.ContainerId && !slices.ContainsFunc(ev.ContainersStatuses, func(c *runtimeapi.ContainerStatus) bool {
		return c.Id == ev.ContainerId && c.State == runtimeapi.ContainerState_CONTAINER_EXITED
	}):
		e.odd = differ("a container's end without its status: %v", ev)
	}
}

// finish ends a life. With complete, the events have to tell all that is there now.
func (e *events) finish(ctx context.Context, patience time.Duration, complete bool) error {
	defer func() {
		e.cancel()
		<-e.ended
		e.keep()
	}()
	if !complete {
		return nil
	}
	deadline := time.Now().Add(patience)
	for {
		now, err := e.run.observe(ctx)
		if err == nil {
			err = e.check(now)
		}
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// keep writes down what was told.
func (e *events) keep() {
	tr := e.run.transcript
	if tr == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, seen := range e.seen {
		tr.events[tr.names[id]] = append(tr.events[tr.names[id]], seen...)
	}
}

// check compares what was told of each id with what is.
func (e *events) check(now observation) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.odd != nil {
		return e.odd
	}
	phases := map[string]phase{}
	for i, p := range now.state.Pods {
		phases[now.ids.pods[i]] = p.Phase
		for j, c := range p.Ctrs {
			phases[now.ids.ctrs[i][j]] = c.Phase
		}
	}
	for id, pod := range e.pod {
		was, old := e.old[id]
		if id == "" || id == noID || old && len(e.seen[id]) == 0 && phases[id] == was {
			continue
		}
		if !told(e.seen[id], phases[id], id == pod, old) {
			return differ("of %s %s, which is %q now, the events are %v", map[bool]string{true: "pod", false: "container"}[id == pod], id, phases[id], e.seen[id])
		}
	}
	return nil
}

// told says whether events, in this order, are the life of a pod or container
// that is in a phase now.
func told(seen []string, now phase, isPod, old bool) bool {
	text := strings.Join(seen, " ")
	lives := map[phase][]string{
		created: {"CREATED"},
		running: {"CREATED STARTED"},
		exited:  {"CREATED STARTED STOPPED", "CREATED STOPPED"},
		absent:  {"CREATED STARTED STOPPED DELETED", "CREATED STOPPED DELETED", "CREATED DELETED"},
	}
	if isPod {
		lives = map[phase][]string{
			ready:   {"CREATED STARTED"},
			stopped: {"CREATED STARTED STOPPED"},
			absent:  {"CREATED STARTED STOPPED DELETED"},
		}
	}
	return slices.ContainsFunc(lives[now], func(life string) bool {
		return text == life || old && strings.HasSuffix(life, text) && (now != absent || text != "")
	})
}

package network

import (
	"context"
	"maps"
	"sync"
)

// gate keeps garbage collection away from attachments in the making: a plugin
// that is told which attachments are valid must not be adding another one.
// Attaching goes first and stops a collection, which can be repeated.
type gate struct {
	mu sync.Mutex

	// live are the pods that this process attaches or has attached.
	live map[string]struct{} // +checklocks:mu

	attaching int // +checklocks:mu
	// collecting is the collection that runs, or nil.
	collecting *collection // +checklocks:mu
}

type collection struct {
	stop context.CancelFunc
	done chan struct{}
}

// attach lets a pod be attached, when the plugins have stopped collecting. Every
// call that returns nil is followed by one of attached.
func (g *gate) attach(ctx context.Context, id string) error {
	g.mu.Lock()
	g.attaching++
	if g.live == nil {
		g.live = make(map[string]struct{})
	}
	g.live[id] = struct{}{}
	running := g.collecting
	g.mu.Unlock()

	if running == nil {
		return nil
	}
	running.stop()
	select {
	case <-running.done:
		return nil
	case <-ctx.Done():
		g.attached(id, false)
		return context.Cause(ctx)
	}
}

// attached ends what attach began.
func (g *gate) attached(id string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attaching--
	if !ok {
		delete(g.live, id)
	}
}

// detached forgets a pod.
func (g *gate) detached(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, id)
}

// pods returns the pods that this process attaches or has attached.
func (g *gate) pods() map[string]struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return cloneSet(g.live)
}

// cloneSet never returns nil.
func cloneSet(set map[string]struct{}) map[string]struct{} {
	clone := make(map[string]struct{}, len(set))
	maps.Copy(clone, set)
	return clone
}

// collect lets plugins collect garbage until ctx ends or the first pod is to be
// attached, and returns the live pods. It returns false when pods are being
// attached now or a collection runs. The caller calls done at the end.
func (g *gate) collect(parent context.Context) (ctx context.Context, live map[string]struct{}, done func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.attaching > 0 || g.collecting != nil {
		return nil, nil, nil, false
	}
	ctx, stop := context.WithCancel(parent)
	c := &collection{stop: stop, done: make(chan struct{})}
	g.collecting = c
	return ctx, cloneSet(g.live), func() {
		g.mu.Lock()
		g.collecting = nil
		g.mu.Unlock()
		stop()
		close(c.done)
	}, true
}

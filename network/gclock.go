package network

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/containerd/errdefs"
)

// gcLock excludes ADD and the plugins' garbage collection from each other: a plugin
// that is told which attachments are valid must not be adding another one meanwhile,
// and would take its address away. Attach goes first. It stops a collection that
// runs, waits until its plugins are killed, and lets none begin before its end.
type gcLock struct {
	mu sync.Mutex

	// The pods that this process attaches or has attached.
	attached map[string]struct{} // +checklocks:mu
	// Calls of Attach under way.
	attaching int // +checklocks:mu
	// A GC runs, in any of its parts.
	running bool // +checklocks:mu
	// The part of it in which plugins collect, or nil.
	plugins *collection // +checklocks:mu
}

// collection is one run of the plugins' GC.
type collection struct {
	stop context.CancelCauseFunc
	done chan struct{} // closed when no plugin of it runs any more
}

// errPreempted ends a collection that a pod has to be attached instead of. The next
// GC does its work.
var errPreempted = errorOf(errdefs.ErrUnavailable, "a pod is being attached, which goes first; try again later")

// errCollecting refuses a second GC at a time.
var errCollecting = errorOf(errdefs.ErrUnavailable, "another garbage collection is running; try again later")

// beginAttach lets a pod be attached, once no plugin collects garbage any more. Each
// call that returns nil is followed by one of endAttach.
func (l *gcLock) beginAttach(ctx context.Context, id string) error {
	l.mu.Lock()
	l.attaching++
	if l.attached == nil {
		l.attached = map[string]struct{}{}
	}
	l.attached[id] = struct{}{}
	plugins := l.plugins
	l.mu.Unlock()

	if plugins == nil {
		return nil
	}
	plugins.stop(errPreempted)
	select {
	case <-plugins.done:
		return nil
	case <-ctx.Done():
		l.endAttach(id, false)
		return fmt.Errorf("wait for the end of garbage collection: %w", context.Cause(ctx))
	}
}

// endAttach ends what beginAttach began. A pod that is not attached is forgotten:
// what is left of it is garbage.
func (l *gcLock) endAttach(id string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attaching--
	if !ok {
		delete(l.attached, id)
	}
}

// detached forgets a pod.
func (l *gcLock) detached(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.attached, id)
}

// has says whether this process attaches a pod or has attached it.
func (l *gcLock) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.attached[id]
	return ok
}

// pods returns the pods that this process attaches or has attached, as a copy.
func (l *gcLock) pods() map[string]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	pods := make(map[string]struct{}, len(l.attached))
	maps.Copy(pods, l.attached)
	return pods
}

// beginGC lets one GC run at a time. The returned function ends it.
func (l *gcLock) beginGC() (end func(), _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running {
		return nil, errCollecting
	}
	l.running = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running = false
	}, nil
}

// beginPlugins lets the plugins of the one GC collect, with a context that ends as
// soon as a pod is to be attached; then its cause is errPreempted, as is the error
// while pods are being attached. Until the returned function is called, no Attach
// goes on, so what is found out before that about attachments stays true.
func (l *gcLock) beginPlugins(parent context.Context) (_ context.Context, end func(), _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attaching > 0 {
		return nil, nil, errPreempted
	}
	ctx, stop := context.WithCancelCause(parent)
	c := &collection{stop: stop, done: make(chan struct{})}
	l.plugins = c
	return ctx, func() {
		l.mu.Lock()
		l.plugins = nil
		l.mu.Unlock()
		stop(nil)
		close(c.done)
	}, nil
}

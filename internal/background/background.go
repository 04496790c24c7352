// Package background owns work that outlives the request which asked for it: joined
// operations, watches, and what is tried again until it succeeds. A Group has all of
// one owner's, so that the owner can end and wait for all of it.
//
// A panic of such work is logged and becomes an error: it runs on no request's
// goroutine, and would end the process.
//
// Locks: Group.mu guards the group's own fields, and is held for nothing else.
package background

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"
	"k8s.io/klog/v2"
)

// ErrClosed is the cause of the end of a group's work, and the answer to new work.
var ErrClosed = fmt.Errorf("the daemon is stopping: %w", errdefs.ErrUnavailable)

// Group is the work of one owner. Its methods are safe for concurrent use.
type Group struct {
	life    context.Context // ends with Close
	end     context.CancelCauseFunc
	flights singleflight.Group

	mu sync.Mutex
	// +checklocks:mu
	running map[string]int // by name
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	idle chan struct{} // made by Close; closed when nothing runs
}

// New returns an empty group.
func New() *Group {
	g := &Group{running: map[string]int{}}
	g.life, g.end = context.WithCancelCause(context.Background())
	return g
}

// Life ends when the group is closed.
func (g *Group) Life() context.Context { return g.life }

// Close ends the contexts of all work, and waits for it until ctx ends. The error names
// what still runs then. Work that is begun afterwards is refused with ErrClosed.
func (g *Group) Close(ctx context.Context) error {
	g.end(ErrClosed)
	g.mu.Lock()
	if !g.closed {
		g.closed, g.idle = true, make(chan struct{})
		if len(g.running) == 0 {
			close(g.idle)
		}
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for name := range g.running {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Errorf("wait for work in the background (%s): %w", strings.Join(names, ", "), context.Cause(ctx))
}

func (g *Group) begin(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running[name]++
	return true
}

func (g *Group) finish(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[name]--; g.running[name] == 0 {
		delete(g.running, name)
	}
	if g.closed && len(g.running) == 0 {
		close(g.idle)
	}
}

// Go runs work until it returns; its context ends with the group. The name is for
// people.
func (g *Group) Go(name string, work func(context.Context)) {
	if !g.begin(name) {
		return
	}
	go func() {
		defer g.finish(name)
		_, _ = guarded(g.life, func(ctx context.Context) (struct{}, error) {
			work(ctx)
			return struct{}{}, nil
		})
	}()
}

// Context is for work of a request that goes on without it: it has the request's
// values, and ends after limit, or with the group.
func (g *Group) Context(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(g.life, func() { end(context.Cause(g.life)) })
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, func() {
		stop()
		cancel()
		end(nil)
	}
}

// Do runs work on a context of its own (see Context), and waits for it until the
// caller's ends.
func Do[T any](ctx context.Context, g *Group, name string, limit time.Duration, work func(context.Context) (T, error)) (T, error) {
	done := make(chan result[T], 1)
	if !g.begin(name) {
		var zero T
		return zero, ErrClosed
	}
	go func() {
		defer g.finish(name)
		ctx, cancel := g.Context(ctx, limit)
		defer cancel()
		v, err := guarded(ctx, work)
		done <- result[T]{v, err}
	}()
	return await(ctx, done)
}

type result[T any] struct {
	value T
	err   error
}

func await[T any](ctx context.Context, done <-chan result[T]) (T, error) {
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// Join is Do, once for all callers of the same key at a time. Who comes later gets the
// same answer.
func Join[T any](ctx context.Context, g *Group, key string, limit time.Duration, work func(context.Context) (T, error)) (T, error) {
	shared := g.flights.DoChan(key, func() (any, error) {
		// Its callers may all leave, so it waits on no context of theirs.
		return Do(context.WithoutCancel(ctx), g, key, limit, work)
	})
	select {
	case r := <-shared:
		v, _ := r.Val.(T)
		return v, r.Err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// Until does work at once, logs a failure, and then does as Retry. The channel that it
// returns is closed after the first attempt. After the end of the group there is none.
func (g *Group) Until(name string, limit time.Duration, work func(context.Context) error) (tried <-chan struct{}) {
	first := make(chan struct{})
	if !g.begin(name) {
		close(first)
		return first
	}
	go func() {
		defer g.finish(name)
		defer close(first)
		if err := attempt(g.life, limit, work); err != nil {
			klog.ErrorS(err, "Failed in the background; it will be tried again", "what", name)
			g.Retry(name, limit, work)
		}
	}()
	return first
}

// The pauses between attempts of Retry.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Retry does work again, less and less often, until it succeeds or the group is
// closed. Each attempt has so much time; the caller has logged the first one. It is for what nobody else asks for again:
// whoever had asked got an error, or nobody had.
func (g *Group) Retry(name string, limit time.Duration, work func(context.Context) error) {
	g.Go(name, func(ctx context.Context) {
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			err := attempt(ctx, limit, work)
			if err == nil {
				return
			}
			klog.V(2).InfoS("Failed again; it will be tried once more", "what", name, "err", err)
		}
	})
}

func attempt(ctx context.Context, limit time.Duration, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := guarded(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, work(ctx) })
	return err
}

// errPanicked is for callers; the log has the rest.
var errPanicked = errors.New("the operation panicked; the log of the daemon has the stack")

func guarded[T any](ctx context.Context, work func(context.Context) (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			klog.ErrorS(nil, "Panic in the background", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanicked, r)
		}
	}()
	return work(ctx)
}

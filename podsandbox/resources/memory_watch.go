package resources

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// A sandbox enforces no memory limit of a single container: what the host
// enforces is the pod's. So a pod in which a container has a limit is watched, and a
// container that exceeds its limit is killed, alone and with all its processes, as by
// the kernel with memory.oom.group.
//
// One goroutine looks at all watched pods, by one read of an open file each, and of one
// for all of them while they do not grow (see gate). The containers' exact use is asked
// of a pod's sandbox, on a goroutine of its own, only when the pod uses more than the
// smallest limit in it, and has grown by what the container nearest to its limit had
// left (see gauge). The next look comes when that container could have reached its
// limit.
//
// What is not guaranteed: a container passes its limit by what it eats until the
// next look; what it takes of memory that another container has freed is seen only after
// slowLook, where the sandbox had not given it back to the host; and a pod whose own
// limit leaves no room beside its containers' (a parent cgroup without the overhead of
// the sandbox) is killed as a whole by the kernel first.

// maxCeilingAge is how old what is known of the limits above a pod may be.
const maxCeilingAge = 30 * time.Second

// uncountedLook is the least time between two questions where the host does not count
// memory.
const uncountedLook = 100 * time.Millisecond

// memoryLimits are those of the pod's running containers, in bytes by id.
func memoryLimits(p *state.Pod) map[string]uint64 {
	limits := map[string]uint64{}
	for _, c := range p.Containers() {
		if l := c.Resources().GetMemoryLimitInBytes(); l > 0 && c.Phase() == lifecycle.Running {
			limits[c.ID()] = uint64(l)
		}
	}
	return limits
}

// WatchMemory is called when a container runs or has another limit. Where the engine
// does not enforce limits, the pod is watched from then on, and looked at at once.
func (r *Controller) WatchMemory(p *state.Pod) {
	if e, err := r.engines.Engine(p.Meta.Handler); err == nil && e.Capabilities().MemoryLimit || len(memoryLimits(p)) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed[p] = struct{}{}
	if !r.watching {
		r.watching = true
		r.work.Go("watch the memory of containers", r.watchMemory)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// memoryWatch looks at the memory of all watched pods. It belongs to one goroutine.
type memoryWatch struct {
	*Controller
	life    context.Context
	pods    map[*state.Pod]*watchedPod
	gates   map[string]*gate // by cgroup
	answers chan answer
	timer   *time.Timer
	pace
	round time.Time // when the timer fires
	ended bool
}

// watchedPod is one pod of a memoryWatch.
type watchedPod struct {
	*state.Pod
	gauge
	group  *cgroup.Group        // of memory; nil before the first look
	memory *cgroup.MemoryReader // open as long as the pod is watched
	gate   *gate

	smallestAt time.Time // when the smallest limit was read
	ceilingAt  time.Time // when the ceiling was read

	lookedAt time.Time
	next     time.Time // when it is looked at again
	changed  bool      // its containers, or their limits
	waits    bool      // for an answer of its sandbox
}

// answer is what a sandbox has said.
type answer struct {
	pod     *watchedPod
	left    uint64        // to the container nearest to its limit
	again   time.Duration // it is to be asked after that at the latest
	ceiling uint64        // as of gauge
}

func newMemoryWatch(r *Controller, life context.Context, now time.Time) *memoryWatch {
	return &memoryWatch{
		Controller: r, life: life, pods: map[*state.Pod]*watchedPod{}, gates: map[string]*gate{}, answers: make(chan answer),
		timer: time.NewTimer(longestLook), pace: pace{began: now}, round: now.Add(longestLook),
	}
}

// watchMemory returns when no running container has a limit.
func (r *Controller) watchMemory(life context.Context) {
	w := newMemoryWatch(r, life, time.Now())
	defer w.close()
	for !w.end() {
		select {
		case <-life.Done():
			return
		case <-w.wake:
			w.lookAtChanged(time.Now())
		case a := <-w.answers:
			w.hear(a, time.Now())
		case <-w.timer.C:
			w.lookAtAll(time.Now())
		}
	}
}

// end tells whether there is nothing to watch. A pod that comes later begins another
// watch.
func (w *memoryWatch) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = len(w.pods) == 0 && len(w.changed) == 0
	w.watching = !w.ended
	return w.ended
}

// close leaves no file open. After a panic the pods wait for the next watch.
func (w *memoryWatch) close() {
	w.timer.Stop()
	if w.ended {
		return // the next watch may run already
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, of := range w.pods {
		w.changed[p] = struct{}{}
		w.closeMemory(of)
	}
	w.watching = false
}

// lookAtChanged looks at the pods that WatchMemory was called for.
func (w *memoryWatch) lookAtChanged(now time.Time) {
	w.mu.Lock()
	changed := w.changed
	w.changed = map[*state.Pod]struct{}{}
	w.mu.Unlock()
	for of := range changed {
		p := w.pods[of]
		if p == nil {
			p = &watchedPod{Pod: of}
			w.pods[of] = p
		}
		p.changed = true
		w.look(p, now)
	}
	w.schedule(now)
}

// lookAtAll looks at the pods whose time has come, and whose gate is not shut.
func (w *memoryWatch) lookAtAll(now time.Time) {
	w.setRound(w.after(now, 0), now) // first, for the scheduler: most often it stays
	for _, p := range w.pods {
		switch {
		case p.next.After(now):
		case p.gate != nil && p.mayBeSpared(now, p.lookedAt) && p.gate.isShut(now):
			p.next = w.after(now, 0)
		default:
			w.look(p, now)
		}
	}
	w.schedule(now)
}

// schedule sets the next round to when a pod is looked at next.
func (w *memoryWatch) schedule(now time.Time) {
	next := now.Add(longestLook)
	for _, p := range w.pods {
		if !p.waits && p.next.Before(next) {
			next = p.next
		}
	}
	w.setRound(next, now)
}

func (w *memoryWatch) setRound(next, now time.Time) {
	if !next.Equal(w.round) {
		w.round = next
		w.timer.Reset(next.Sub(now))
	}
}

// look looks at a pod, unless it waits for an answer: then it is looked at after that.
func (w *memoryWatch) look(p *watchedPod, now time.Time) {
	if p.waits {
		return
	}
	p.lookedAt, p.next = now, w.after(now, longestLook)
	if p.changed || now.Sub(p.smallestAt) >= slowLook {
		limits := slices.Collect(maps.Values(memoryLimits(p.Pod)))
		if len(limits) == 0 {
			w.closeMemory(p)
			delete(w.pods, p.Pod)
			return
		}
		p.smallest, p.smallestAt = slices.Min(limits), now
	}
	if p.changed {
		p.changed, p.due, p.ceilingAt = false, time.Time{}, time.Time{}
	}
	sandbox := p.Sandbox()
	if sandbox == nil || !w.openMemory(p) {
		return // the pod is being stopped
	}
	use, err := p.memory.Usage()
	ask, pause := !now.Before(p.due), p.due.Sub(now)
	if err == nil {
		ask, pause = p.gauge.look(now, use, p.memory.Held)
		w.looked(now, p.moved)
	}
	if ask {
		w.ask(p, sandbox, now, use, err == nil)
		return
	}
	p.next = w.after(now, pause)
}

// openMemory opens the memory of the pod's cgroup, unless it has none any more.
func (w *memoryWatch) openMemory(p *watchedPod) bool {
	g := p.Group()
	if g != p.group {
		w.closeMemory(p)
		p.group = g
	}
	if g != nil && p.memory == nil {
		p.memory = g.OpenMemory()
		w.enter(p)
	}
	return g != nil
}

func (w *memoryWatch) closeMemory(p *watchedPod) {
	if p.memory != nil {
		p.memory.Close()
		w.leave(p)
		p.memory = nil
	}
}

// ask lets a goroutine of the pod's own look at the exact use of its containers: a sandbox
// may not answer for long.
func (w *memoryWatch) ask(p *watchedPod, sandbox engine.Sandbox, now time.Time, use uint64, counted bool) {
	held, err := p.memory.Held()
	if err != nil {
		held = math.MaxUint64
	}
	p.asking(use, held)
	a, memory, stale := answer{pod: p, ceiling: p.ceiling}, p.memory, now.Sub(p.ceilingAt) > maxCeilingAge
	if stale {
		p.ceilingAt = now
	}
	p.waits = true
	w.work.Go("look at the memory of pod "+p.ID(), func(life context.Context) {
		defer func() {
			select {
			case w.answers <- a:
			case <-life.Done():
			}
		}()
		a.left, a.again = math.MaxUint64, longestLook // after a panic
		a.left, a.again = w.lookInside(life, p.Pod, sandbox)
		if stale {
			a.ceiling = memory.Ceiling()
		}
		if !counted {
			a.again = min(a.again, lasts(a.left, uncountedLook))
		}
	})
}

// hear takes in what a pod's sandbox has said.
func (w *memoryWatch) hear(a answer, now time.Time) {
	p := a.pod
	p.waits, p.ceiling = false, a.ceiling
	p.answered(a.left, now.Add(a.again))
	p.next = w.after(now, lasts(a.left, shortestLook))
	if p.changed {
		w.look(p, now)
	}
	w.schedule(now)
}

// lookInside kills the containers that are over their limits. It returns how
// many bytes the others have left at least, and when to look again at the latest.
func (r *Controller) lookInside(life context.Context, p *state.Pod, sandbox engine.Sandbox) (left uint64, again time.Duration) {
	ctx, cancel := context.WithTimeout(life, r.timeout)
	defer cancel()
	limits := memoryLimits(p)
	use, err := sandbox.Stats(ctx)
	if err != nil {
		if !errdefs.IsUnavailable(err) && life.Err() == nil {
			klog.ErrorS(err, "Failed to read the memory of a pod's containers", "pod", p.ID())
		}
		return math.MaxUint64, longestLook
	}
	r.NotePeaks(use)
	over, left := overLimit(limits, use)
	for _, id := range over {
		if err := r.oomKill(ctx, p, id, use[id].MemoryBytes, limits[id]); err != nil {
			klog.ErrorS(err, "Failed to kill a container that is over its memory limit", "container", id)
		}
	}
	if len(over) > 0 {
		return left, longestLook // it may not have died of it
	}
	return left, slowLook
}

// overLimit finds who uses more than allowed, and what is left to the one of the
// others that is nearest to its limit.
func overLimit(limits map[string]uint64, use map[string]engine.Usage) (over []string, left uint64) {
	left = math.MaxUint64
	for id, limit := range limits {
		used := use[id].MemoryBytes
		if used > limit {
			over = append(over, id)
			continue
		}
		left = min(left, limit-used)
	}
	return over, left
}

// oomKill records why, and then kills: the container's wait tells of its end.
func (r *Controller) oomKill(ctx context.Context, p *state.Pod, id string, used, limit uint64) error {
	c, err := r.pods.FindContainer(id)
	if err != nil {
		return nil // it has been removed meanwhile
	}
	if !c.Status().OOMKilled {
		klog.InfoS("Container is over its memory limit and is killed", "pod", p.ID(), "container", id, "bytes", used, "limit", limit)
		err := c.Force(func(st *record.ContainerStatus) error {
			if st.Phase != lifecycle.Running {
				return fmt.Errorf("it is %s: %w", st.Phase, errdefs.ErrFailedPrecondition)
			}
			st.OOMKilled = true
			return nil
		})
		if errdefs.IsFailedPrecondition(err) {
			return nil
		}
		if err != nil {
			klog.ErrorS(err, "Failed to record why a container is killed", "container", c.ID())
		}
	}
	return c.Signal(ctx, unix.SIGKILL, true)
}

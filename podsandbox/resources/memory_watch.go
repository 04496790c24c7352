package resources

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// A sandbox enforces no memory limit of a single container: what the host
// enforces is the pod's. So a pod in which a container has a limit is watched, by
// one goroutine, and a container that exceeds its limit is killed, alone and with
// all its processes, as by the kernel with memory.oom.group.
//
// The container's exact use is asked of the sandbox, but only when the pod as a
// whole uses more on the host than the smallest limit in it; until then a look is
// one read of a control file. The next look comes when the container could have
// reached its limit.
//
// What is not guaranteed: a container passes its limit by what it eats until the
// next look, and a pod whose own limit leaves no room beside its containers' (a
// parent cgroup without the overhead of the sandbox) is killed as a whole by the
// kernel first.

const (
	// fastestGrowth is how fast memory can be taken, in bytes a second, measured
	// with a program that does nothing else.
	fastestGrowth = 1 << 30

	shortestLook = 10 * time.Millisecond
	longestLook  = time.Second
)

// nextLook is how long so many bytes last.
func nextLook(left uint64) time.Duration {
	d := time.Duration(math.Min(float64(left)/fastestGrowth*float64(time.Second), float64(longestLook)))
	return max(d, shortestLook)
}

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

// WatchMemory is called when a container runs or has another limit. It starts the
// pod's watch where the engine does not enforce limits, and makes a running one look again.
func (r *Controller) WatchMemory(p *state.Pod) {
	if e, err := r.engines.Engine(p.Meta.Handler); err == nil && e.Capabilities().MemoryLimit || len(memoryLimits(p)) == 0 {
		return
	}
	look := r.beginWatch(p)
	if look == nil {
		return
	}
	r.work.Go("watch the memory of pod "+p.ID(), func(life context.Context) {
		for look != nil {
			r.watchWhileLimited(life, p, look)
			r.endWatch(p)
			// A container may have started between the two.
			if life.Err() != nil || len(memoryLimits(p)) == 0 {
				return
			}
			look = r.beginWatch(p)
		}
	})
}

// beginWatch returns what makes the caller's watch look at once; nil if somebody
// watches, who then looks.
func (r *Controller) beginWatch(p *state.Pod) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if look, watched := r.watches[p]; watched {
		select {
		case look <- struct{}{}:
		default:
		}
		return nil
	}
	look := make(chan struct{}, 1)
	r.watches[p] = look
	return look
}

func (r *Controller) endWatch(p *state.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watches, p)
}

// watchWhileLimited returns when no running container has a limit.
func (r *Controller) watchWhileLimited(life context.Context, p *state.Pod, look <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-look:
		case <-timer.C:
		}
		limits := memoryLimits(p)
		if len(limits) == 0 {
			return
		}
		timer.Reset(nextLook(r.lookAtMemory(life, p, limits)))
	}
}

// lookAtMemory kills the containers that are over their limits. It returns how
// many bytes the others have left at least.
func (r *Controller) lookAtMemory(life context.Context, p *state.Pod, limits map[string]uint64) uint64 {
	g, sb := p.Group(), p.Sandbox()
	if g == nil || sb == nil {
		return math.MaxUint64 // the pod is being stopped
	}
	smallest := uint64(math.MaxUint64)
	for _, l := range limits {
		smallest = min(smallest, l)
	}
	onHost, err := g.MemoryUsage()
	if err == nil && onHost < smallest {
		return smallest - onHost
	}
	ctx, cancel := context.WithTimeout(life, r.timeout)
	defer cancel()
	use, err := sb.Stats(ctx)
	if err != nil {
		if !errdefs.IsUnavailable(err) && life.Err() == nil {
			klog.ErrorS(err, "Failed to read the memory of a pod's containers", "pod", p.ID())
		}
		return math.MaxUint64
	}
	r.NotePeaks(use)
	over, left := overLimit(limits, use)
	for _, id := range over {
		if err := r.oomKill(ctx, p, id, use[id].MemoryBytes, limits[id]); err != nil {
			klog.ErrorS(err, "Failed to kill a container that is over its memory limit", "container", id)
		}
	}
	return left
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

package podsandbox

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
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
	// fastestEater is how fast memory can be taken, in bytes a second, measured
	// with a program that does nothing else.
	fastestEater = 1 << 30

	shortestLook = 10 * time.Millisecond
	longestLook  = time.Second
)

// nextLook is how long so many bytes last.
func nextLook(left uint64) time.Duration {
	d := time.Duration(math.Min(float64(left)/fastestEater*float64(time.Second), float64(longestLook)))
	return max(d, shortestLook)
}

// memoryLimits are those of the pod's running containers, in bytes by id.
func (p *pod) memoryLimits() map[string]uint64 {
	limits := map[string]uint64{}
	for _, c := range p.members() {
		if l := c.resources().GetMemoryLimitInBytes(); l > 0 && c.phase() == lifecycle.Running {
			limits[c.id()] = uint64(l)
		}
	}
	return limits
}

// watchMemory is called when a container runs or has another limit. It starts
// the pod's watch where one is needed, and makes a running one look again.
func (m *Manager) watchMemory(p *pod) {
	if len(p.memoryLimits()) == 0 || !p.beginWatch() {
		return
	}
	m.goTask(func() {
		for {
			m.watchWhileLimited(p)
			p.endWatch()
			// A container may have started between the two.
			if m.life.Err() != nil || len(p.memoryLimits()) == 0 || !p.beginWatch() {
				return
			}
		}
	})
}

// beginWatch tells whether the caller is to watch. If somebody does, he looks now.
func (p *pod) beginWatch() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched {
		select {
		case p.look <- struct{}{}:
		default:
		}
		return false
	}
	p.watched = true
	return true
}

func (p *pod) endWatch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = false
}

// watchWhileLimited returns when no running container has a limit.
func (m *Manager) watchWhileLimited(p *pod) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.life.Done():
			return
		case <-p.look:
		case <-timer.C:
		}
		limits := p.memoryLimits()
		if len(limits) == 0 {
			return
		}
		timer.Reset(nextLook(m.lookAtMemory(p, limits)))
	}
}

// lookAtMemory kills the containers that are over their limits. It returns how
// many bytes the others have left at least.
func (m *Manager) lookAtMemory(p *pod, limits map[string]uint64) uint64 {
	g, sb := p.getGroup(), p.getSandbox()
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
	ctx, cancel := context.WithTimeout(m.life, m.opts.Timeouts.Sandbox)
	defer cancel()
	use, err := sb.Stats(ctx)
	if err != nil {
		if !errdefs.IsUnavailable(err) && m.life.Err() == nil {
			klog.ErrorS(err, "Look at the memory of a pod's containers", "pod", p.id())
		}
		return math.MaxUint64
	}
	m.stats.notePeaks(use)
	over, left := overLimit(limits, use)
	for _, id := range over {
		if err := m.oomKill(ctx, p, id, use[id].MemoryBytes, limits[id]); err != nil {
			klog.ErrorS(err, "Kill a container that is over its memory limit", "container", id)
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
func (m *Manager) oomKill(ctx context.Context, p *pod, id string, used, limit uint64) error {
	c, err := m.findContainer(id)
	if err != nil {
		return nil // it has been removed meanwhile
	}
	if !c.Status().OOMKilled {
		klog.InfoS("Container is over its memory limit and is killed", "pod", p.id(), "container", id, "bytes", used, "limit", limit)
		err := c.Note(func(st *record.ContainerStatus) error {
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
			klog.ErrorS(err, "Record why a container is killed", "container", c.id())
		}
	}
	return m.signal(ctx, c, int(unix.SIGKILL), true)
}

package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/stream"
)

// exitStartError is the exit code of a container that never ran, as other
// runtimes have it.
const exitStartError = 128

// drainPatience is how long the end of a container may wait for the rest of its output to
// be in its log. That takes milliseconds, and more only on a disk that is full or at
// fault. It is shorter than timeouts.kill: who kills a container waits for its end.
const drainPatience = 5 * time.Second

// end is how a container ended.
type end struct {
	at      time.Time
	code    int
	reason  string
	message string
}

// endOf reads the answer of a parked wait.
func endOf(c *state.Container, status engine.ExitStatus, err error) end {
	e := end{at: time.Now(), code: status.Code, reason: state.ReasonCompleted}
	if status.Code != 0 {
		e.reason = state.ReasonError
	}
	st := c.Status()
	switch {
	case err == nil && e.code == 137 && st.OOMKilled:
		e.reason = state.ReasonOOMKilled
		e.message = fmt.Sprintf("the container used more memory than its limit of %d bytes", c.Resources().GetMemoryLimitInBytes())
	case err == nil && e.code == 137 && st.Evicted != "":
		e.message = "an NRI plugin evicted the container: " + st.Evicted
	case err == nil:
	case errdefs.IsNotFound(err):
		// It was Starting when a daemon died, and the start never arrived; or
		// somebody destroyed it behind our back.
		e.code, e.reason, e.message = 255, state.ReasonUnknown, "the sandbox does not know the container"
	default:
		e.code, e.reason, e.message = 137, state.ReasonError, "the sandbox process ended"
		if killedForMemory(c.Pod, st.OOMKills) {
			e.reason, e.message = state.ReasonOOMKilled, "the kernel killed the sandbox process: the pod was out of memory"
		}
	}
	return e
}

func failedToStart(err error) end {
	return end{at: time.Now(), code: exitStartError, reason: state.ReasonStartError, message: err.Error()}
}

// endedWithPod is the end of a container whose sandbox is gone and that nobody
// waited for.
func endedWithPod(c *state.Container) end {
	if c.Phase() == lifecycle.Created {
		return end{at: time.Now(), code: exitStartError, reason: state.ReasonError, message: "the pod ended before the container was started"}
	}
	return end{at: time.Now(), code: 137, reason: state.ReasonError, message: "the sandbox process ended"}
}

// containerEnded is the one path of every end: drain the log, record, announce,
// give back what the sandbox holds. Only the first call for a container counts.
func (m *Manager) containerEnded(c *state.Container, e end) {
	// Not cut off by the daemon's end, which waits for it: the record would say that the
	// log is complete.
	ctx, cancel := context.WithTimeout(context.Background(), m.timeouts.sandbox)
	defer cancel()
	crashpoint.Here("before exit handling")
	drain(ctx, m.Streams, c) // before the record: who sees Exited can read the whole log
	crashpoint.Here("after last words")
	err := c.ForceTransition(lifecycle.Ended, func(st *record.ContainerStatus) {
		st.FinishedAt, st.ExitCode = max(e.at.UnixNano(), c.Meta.CreatedAt, st.StartedAt), e.code
		st.Reason, st.Message = e.reason, e.message
	})
	if err != nil && !errors.Is(err, record.ErrNotPersisted) {
		return // another path was first
	}
	c.MarkEnded()
	if err := m.releaseEnded(ctx, c); err != nil {
		klog.ErrorS(err, "Failed to record the end of a container; it will be tried again", "container", c.ID())
		m.work.Retry("record the end of container "+c.ID(), m.timeouts.sandbox, func(ctx context.Context) error {
			return m.releaseEnded(ctx, c)
		})
	}
	m.Resources.Shrink(c.Pod)
	crashpoint.Here("after exit handling")
	m.opts.Plugins.ContainerStopped(ctx, c)
}

func drain(ctx context.Context, streams *stream.Service, c *state.Container) {
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	streams.Finish(ctx, c)
}

// releaseEnded frees what a container whose end is on record has in the sandbox, which
// keeps the exit status until then, for the next daemon. It can be repeated.
func (m *Manager) releaseEnded(ctx context.Context, c *state.Container) error {
	if err := c.Persist(); err != nil {
		return err
	}
	if sb := c.Pod.Sandbox(); sb != nil {
		resources.AdjustOOMScore(c.Pod, sb)
		if err := sb.Destroy(ctx, c.ID()); err != nil && !errdefs.IsUnavailable(err) && !errdefs.IsNotFound(err) {
			klog.ErrorS(err, "Failed to give back what an ended container held", "container", c.ID())
		}
	}
	return nil
}

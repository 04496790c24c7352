package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
)

// Reasons of a container's end; the kubelet compares them.
const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOMKilled  = "OOMKilled"
	reasonStartError = "StartError"
	reasonUnknown    = "ContainerStatusUnknown"
)

// exitStartError is the exit code of a container that never ran, as other
// runtimes have it.
const exitStartError = 128

// end is how a container ended.
type end struct {
	at      time.Time
	code    int
	reason  string
	message string
}

// endOf reads the answer of a parked wait.
func (m *Manager) endOf(c *container, status engine.ExitStatus, err error) end {
	e := end{at: time.Now(), code: status.Code, reason: reasonCompleted}
	if status.Code != 0 {
		e.reason = reasonError
	}
	switch {
	case err == nil && e.code == 137 && c.Status().OOMKilled:
		e.reason = reasonOOMKilled
		e.message = fmt.Sprintf("the container used more memory than its limit of %d bytes", c.resources().GetMemoryLimitInBytes())
	case err == nil && e.code == 137 && c.Status().Evicted != "":
		e.message = "an NRI plugin evicted the container: " + c.Status().Evicted
	case err == nil:
	case errdefs.IsNotFound(err):
		// It was Starting when a daemon died, and the start never arrived; or
		// somebody destroyed it behind our back.
		e.code, e.reason, e.message = 255, reasonUnknown, "the sandbox does not know the container"
	default:
		e.code, e.reason, e.message = 137, reasonError, "the sandbox process ended"
		if podOOMKills(c.pod) > 0 {
			e.reason, e.message = reasonOOMKilled, "the kernel killed the sandbox process: the pod was out of memory"
		}
	}
	return e
}

func failedToStart(err error) end {
	return end{at: time.Now(), code: exitStartError, reason: reasonStartError, message: err.Error()}
}

// endedWithPod is the end of a container whose sandbox is gone and that nobody
// waited for.
func endedWithPod(c *container) end {
	if c.phase() == lifecycle.Created {
		return end{at: time.Now(), code: exitStartError, reason: reasonError, message: "the pod ended before the container was started"}
	}
	return end{at: time.Now(), code: 137, reason: reasonError, message: "the sandbox process ended"}
}

// containerEnded is the one path of every end: drain the log, record, announce,
// give back what the sandbox holds. Only the first call for a container counts.
func (m *Manager) containerEnded(c *container, e end) {
	ctx, cancel := context.WithTimeout(context.Background(), m.opts.Timeouts.Sandbox)
	defer cancel()
	crashpoint.Here("before exit handling")
	// Before the record: who sees Exited can read the whole log.
	finishTerminal(ctx, c)
	m.finishStreams(ctx, c)
	crashpoint.Here("after last words")
	err := m.tell(c.pod, c.id(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, func() error {
		return c.note(lifecycle.Ended, func(st *record.ContainerStatus) {
			st.FinishedAt, st.ExitCode = max(e.at.UnixNano(), c.Meta.CreatedAt, st.StartedAt), e.code
			st.Reason, st.Message = e.reason, e.message
		})
	})
	if err != nil && !errors.Is(err, record.ErrUnsaved) {
		return // another path was first
	}
	c.markEnded()
	if err := m.forgetEnded(ctx, c); err != nil {
		klog.ErrorS(err, "Record the end of a container; it will be tried again", "container", c.id())
		m.persist(func(ctx context.Context) error { return m.forgetEnded(ctx, c) })
	}
	m.shrinkGroup(c.pod)
	crashpoint.Here("after exit handling")
	m.tellStopped(ctx, c)
}

// finishStreams writes the rest of a container's output to its log. On a disk at
// fault that goes on until the container is removed; its end is told meanwhile.
func (m *Manager) finishStreams(ctx context.Context, c *container) {
	s := c.takeStreams()
	if s == nil {
		return // another path is at it
	}
	err := s.Finish(ctx)
	if err == nil {
		return
	}
	klog.ErrorS(err, "Drain the log of an ended container; it will be tried again", "container", c.id())
	c.setStreams(s) // for its removal, which closes them
	m.persist(func(ctx context.Context) error {
		if c.getStreams() != s {
			return nil
		}
		if err := s.Finish(ctx); err != nil {
			return err
		}
		c.takeStreams()
		return nil
	})
}

// forgetEnded frees what a container whose end is on record has in the sandbox,
// which keeps the exit status until then, for the next daemon. It can be repeated.
func (m *Manager) forgetEnded(ctx context.Context, c *container) error {
	if err := c.Save(); err != nil {
		return err
	}
	if sb := c.pod.getSandbox(); sb != nil {
		adjustOOMScore(c.pod, sb)
		if err := sb.Destroy(ctx, c.id()); err != nil && !errdefs.IsUnavailable(err) && !errdefs.IsNotFound(err) {
			klog.ErrorS(err, "Give back what an ended container held", "container", c.id())
		}
	}
	return nil
}

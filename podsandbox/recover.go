package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
)

// recoverParallel is how many pods are taken over at once: the work is waiting
// for sandboxes to answer.
const recoverParallel = 8

// Recover makes the manager what the earlier daemon was, and finishes or undoes
// what that one left in between. In this order:
//
//  1. records are loaded; a damaged one is set aside and becomes an orphan;
//  2. each pod by its phase: Ready is adopted (a sandbox that is gone makes it
//     Dead), Creating and what was being undone is undone, Stopping and Removing are finished as far as
//     possible; a pod of another boot is Dead and gives back what it holds;
//  3. each container of an adopted pod by its phase: Creating is undone, Created
//     keeps its streams, Starting is Running or, when the sandbox never started
//     it, Created again, Running is waited for, so an exit that happened meanwhile
//     is learned, Removing is finished; one that has no record, or counts as Exited,
//     is ended in the sandbox;
//  4. what no record owns is removed: sandboxes, namespaces, folders, cgroups,
//     root file systems, and through CNI GC addresses.
//
// It must have returned before any other call: GC would take a new pod's address.
func (m *Manager) Recover(ctx context.Context) error {
	loaded, damaged, err := m.records.Load()
	if err != nil {
		return err
	}
	for _, err := range damaged {
		klog.ErrorS(err, "Damaged record")
	}
	for _, l := range loaded {
		m.register(l)
	}
	var g errgroup.Group
	g.SetLimit(recoverParallel)
	for _, p := range m.allPods() {
		g.Go(func() error {
			m.recoverPod(ctx, p)
			return nil
		})
	}
	g.Wait()
	m.removeOrphans(ctx)
	return nil
}

func (m *Manager) register(l record.Loaded) {
	p := newPod(l.Pod)
	p.lost = l.Lost
	m.addPod(p)
	for _, r := range l.Containers {
		m.addContainer(newContainer(p, r))
	}
}

// recoverPod never fails: a pod that cannot be helped stays in its record for
// the caller's next stop or removal.
func (m *Manager) recoverPod(ctx context.Context, p *pod) {
	if g, err := cgroup.Load(p.config().GetLinux().GetCgroupParent(), p.id()); err == nil {
		p.setGroup(g)
	} else if !errdefs.IsNotFound(err) {
		klog.ErrorS(err, "Find the cgroup of a pod", "pod", p.id())
	}
	st := p.Status()
	var err error
	switch {
	case st.Phase == lifecycle.Removing:
		m.finishMembers(ctx, p)
		err = m.remove(ctx, p)
	case st.Phase == lifecycle.Creating, st.Abandoned:
		m.abandon(ctx, p)
	case st.Phase == lifecycle.Stopping:
		m.finishMembers(ctx, p)
		err = m.stop(ctx, p)
	case st.Phase == lifecycle.Stopped:
		m.finishMembers(ctx, p)
	case st.BootID != m.bootID:
		err = m.endAfterReboot(ctx, p)
	case st.Phase == lifecycle.Dead:
		m.finishMembers(ctx, p)
	default:
		err = m.adopt(ctx, p, st.Process)
	}
	if err != nil {
		klog.ErrorS(err, "Recover a pod", "pod", p.id(), "phase", p.phase())
	}
}

// adopt takes over the sandbox of a ready pod, or records its death.
func (m *Manager) adopt(ctx context.Context, p *pod, proc engine.Process) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Sandbox)
	defer cancel()
	cfg, err := m.engineConfig(p)
	if err != nil {
		return err
	}
	sb, err := m.opts.Engine.Adopt(ctx, cfg, proc)
	if err != nil {
		klog.ErrorS(err, "Adopt a sandbox; its pod is dead", "pod", p.id(), "pid", proc.PID)
		if rerr := m.opts.Engine.Reap(ctx, p.id()); rerr != nil {
			return fmt.Errorf("end a sandbox that could not be adopted: %w", rerr)
		}
		m.finishMembers(ctx, p)
		m.sandboxDied(p)
		return nil
	}
	p.setSandbox(sb)
	m.watchSandbox(p, sb)
	for _, id := range p.lost { // another is made in its place, and must be alone
		if err := sb.Destroy(ctx, id); err != nil {
			klog.ErrorS(err, "End a container without a record", "container", id)
		}
	}
	members := p.members()
	slices.SortStableFunc(members, func(a, b *container) int { return startingLast(a) - startingLast(b) })
	for _, c := range members {
		if err := m.recoverContainer(ctx, c, sb); err != nil {
			klog.ErrorS(err, "Recover a container", "container", c.id(), "phase", c.phase())
		}
	}
	// An update may have been cut off between the record and the cgroup.
	m.shrinkGroup(p)
	m.goTask(func() { m.showAllLimits(p, sb) })
	return nil
}

// recoverContainer takes over a container of a living sandbox.
func (m *Manager) recoverContainer(ctx context.Context, c *container, sb engine.Sandbox) error {
	switch c.phase() {
	case lifecycle.Creating, lifecycle.Removing:
		return m.removeContainer(ctx, c)
	case lifecycle.Created:
		return m.reopenStreams(c)
	case lifecycle.Exited:
		// The record may have come before, or be that of a status that was lost.
		return sb.Destroy(ctx, c.id())
	case lifecycle.Starting:
		started, err := m.recoverStart(ctx, c, sb)
		if err == nil && !started {
			return m.unstart(ctx, c, sb)
		}
		if errdefs.IsInvalidArgument(err) {
			serr := m.reopenStreams(c)
			m.containerEnded(c, failedToStart(err))
			return errors.Join(err, serr)
		}
		// Also when that cannot be told: the wait will.
		err = c.note(lifecycle.Started, func(st *record.ContainerStatus) { st.StartedAt = startedNow(c) })
		if err != nil && !errors.Is(err, record.ErrUnsaved) {
			return err
		}
		return m.followRunning(ctx, c, sb)
	case lifecycle.Running:
		known, err := m.engineContainer(c)
		if err = errors.Join(err, sb.Learn(ctx, known)); err != nil {
			klog.ErrorS(err, "A container's volumes are not shared with others", "container", c.id())
		}
		return m.followRunning(ctx, c, sb)
	}
	return nil
}

// startingLast is 1 for a container whose start was cut off: it may need what the
// others have.
func startingLast(c *container) int {
	if c.phase() == lifecycle.Starting {
		return 1
	}
	return 0
}

// recoverStart asks whether a container was started, and brings its start to an end.
func (m *Manager) recoverStart(ctx context.Context, c *container, sb engine.Sandbox) (started bool, err error) {
	known, err := m.engineContainer(c)
	if err != nil { // it may run all the same
		return true, fmt.Errorf("read what it was to be: %w", errdefs.ErrInternal.WithMessage(err.Error()))
	}
	return sb.Recover(ctx, known)
}

// followRunning waits for the end of a container that an earlier daemon has started.
func (m *Manager) followRunning(ctx context.Context, c *container, sb engine.Sandbox) error {
	err := m.reopenStreams(c)
	if err == nil {
		err = recoverStdio(c, sb)
	}
	m.watchContainer(c, sb)
	if c.Status().OOMKilled { // the signal may not have been sent
		err = errors.Join(err, m.signal(ctx, c, int(unix.SIGKILL), true))
	}
	return err
}

// unstart makes a container Created again whose start did not arrive, for the
// caller to start: it has not run, and must not be told to have failed.
func (m *Manager) unstart(ctx context.Context, c *container, sb engine.Sandbox) error {
	if err := sb.Destroy(ctx, c.id()); err != nil { // the place that it was given
		return err
	}
	if err := c.note(lifecycle.Unstarted, nil); err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	return m.reopenStreams(c)
}

func (m *Manager) reopenStreams(c *container) error {
	s, err := logs.Open(m.streamsConfig(c))
	if err != nil {
		return fmt.Errorf("reopen streams: %w", err)
	}
	c.setStreams(s)
	return nil
}

// finishMembers brings the containers of a pod without a sandbox to their end.
// What their streams still hold is written to the log first.
func (m *Manager) finishMembers(ctx context.Context, p *pod) {
	for _, c := range p.members() {
		switch c.phase() {
		case lifecycle.Creating, lifecycle.Removing:
			if err := m.removeContainer(ctx, c); err != nil {
				klog.ErrorS(err, "Finish the removal of a container", "container", c.id())
			}
		case lifecycle.Created, lifecycle.Starting, lifecycle.Running:
			if err := m.reopenStreams(c); err != nil {
				klog.ErrorS(err, "Read what an ended container wrote", "container", c.id())
			}
			m.containerEnded(c, endedWithPod(c))
		}
	}
}

// endAfterReboot records that a pod of an earlier boot is dead, and gives back
// its addresses.
func (m *Manager) endAfterReboot(ctx context.Context, p *pod) error {
	why := "the node was restarted"
	if st := p.Status(); st.BootID == "" { // of a status that was lost
		why = st.Message
	}
	for _, c := range p.members() {
		switch c.phase() {
		case lifecycle.Creating, lifecycle.Removing:
			if err := m.removeContainer(ctx, c); err != nil {
				klog.ErrorS(err, "Finish the removal of a container", "container", c.id())
			}
		case lifecycle.Created, lifecycle.Starting, lifecycle.Running:
			m.containerEnded(c, end{at: time.Now(), code: 255, reason: reasonUnknown, message: why})
		}
	}
	err := p.note(lifecycle.Died, func(st *record.PodStatus) { st.Message = why })
	if err != nil && !errors.Is(err, record.ErrUnsaved) {
		return err
	}
	return m.release(ctx, p)
}

// removeOrphans removes what no record owns. Each kind is on its own; a failure
// is logged and the rest goes on.
func (m *Manager) removeOrphans(ctx context.Context) {
	known := func(id string) bool { _, err := m.findPod(id); return err == nil }
	for _, dir := range []string{m.paths.pods(), m.paths.namespaces()} {
		for _, id := range namesIn(dir) {
			if !known(id) {
				m.removeOrphanPod(ctx, id)
			}
		}
	}
	m.removeOrphanRootfs(ctx)
	m.collectNetwork(ctx)
}

// removeOrphanPod removes the traces of a pod whose record is gone or damaged.
func (m *Manager) removeOrphanPod(ctx context.Context, id string) {
	klog.InfoS("Remove what is left of a pod without a record", "pod", id)
	if err := m.opts.Engine.Reap(ctx, id); err != nil {
		klog.ErrorS(err, "Remove an orphan's sandbox", "pod", id)
		return
	}
	for _, cid := range namesIn(m.paths.pod(id)) {
		if err := m.unmountOrphan(ctx, id, cid); err != nil {
			klog.ErrorS(err, "Unmount an orphan's file systems", "container", cid)
			return // its folder must not be walked into
		}
	}
	if err := removeOrphanGroup(ctx, m.paths.cgroup(id), id); err != nil {
		klog.ErrorS(err, "Remove an orphan's cgroup", "pod", id)
	}
	if err := network.RemoveNamespace(m.paths.netns(id)); err != nil {
		klog.ErrorS(err, "Remove an orphan's network namespace", "pod", id)
	}
	if err := os.RemoveAll(m.paths.pod(id)); err != nil {
		klog.ErrorS(err, "Remove an orphan's folder", "pod", id)
	}
}

// removeOrphanGroup finds the cgroup by the note that was left beside the record.
func removeOrphanGroup(ctx context.Context, note, id string) error {
	parent, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it did not get that far
	}
	if err != nil {
		return err
	}
	g, err := cgroup.Load(string(parent), id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.Delete(ctx)
}

// removeOrphanRootfs removes writable layers without a container.
func (m *Manager) removeOrphanRootfs(ctx context.Context) {
	keys, err := m.opts.Images.RootfsKeys()
	if err != nil {
		klog.ErrorS(err, "List root file systems")
		return
	}
	for _, key := range keys {
		if _, err := m.findContainer(ContainerOf(key)); err == nil {
			continue
		}
		klog.InfoS("Remove a root file system without a container", "container", key)
		if err := m.opts.Images.UnmountRootfs(ctx, key, ""); err != nil {
			klog.ErrorS(err, "Remove a root file system", "container", key)
		}
	}
}

// collectNetwork lets CNI free the addresses of pods that are not ours any more.
func (m *Manager) collectNetwork(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Network)
	defer cancel()
	var valid []network.Pod
	for _, p := range m.allPods() {
		if !p.hostNetwork() {
			valid = append(valid, m.networkPod(p))
		}
	}
	if err := m.opts.CNI.GC(ctx, valid); err != nil && !errdefs.IsUnavailable(err) {
		klog.ErrorS(err, "Collect unused addresses")
	}
}

func namesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e.Name()))
	}
	return names
}

package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// labelName says on a lease for which name its pull was.
const labelName = "cri-sandbox/name"

// retryWindow is how long the downloads of a failed pull wait for the next try.
const retryWindow = time.Hour

// retainedLease is what an ended pull left for its retry.
type retainedLease struct {
	name  string
	since time.Time
}

// pullLeases own what unfinished pulls have on disk: the leases of running pulls, and
// those of ended ones, whose downloads wait for a retry.
type pullLeases struct {
	backend *backend
	expired func() // called when the window of a retry has passed

	mu sync.Mutex
	// Of ended pulls, by lease id.
	retained map[string]retainedLease // +checklocks:mu
}

func newPullLeases(b *backend, expired func()) *pullLeases {
	return &pullLeases{backend: b, expired: expired, retained: map[string]retainedLease{}}
}

// open makes a new lease for one pull. Whatever is written, or found present,
// with the returned context stays until the lease is deleted.
func (l *pullLeases) open(ctx context.Context, name string) (context.Context, error) {
	crashpoint.Here("before image lease")
	made, err := l.backend.leases.Create(ctx, leases.WithRandomID(), leases.WithLabel(labelName, name))
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	crashpoint.Here("after image lease")
	return leases.WithLease(ctx, made.ID), nil
}

// end ends the lease of a pull, and those of earlier tries for the same name.
func (l *pullLeases) end(ctx context.Context, name string) error {
	l.keepForRetry(ctx, name)
	return l.delete(ctx, l.of(name))
}

// finish is end for a pull that succeeded.
func (l *pullLeases) finish(ctx context.Context, name string) {
	if err := l.end(ctx, name); err != nil {
		// They expire in time; the image is complete.
		klog.ErrorS(err, "Failed to remove the leases of a finished pull; its downloads stay until they expire", "image", name)
	}
}

// deleteEarlier deletes what earlier pulls of these names have left for a retry that
// will not come: the image is complete, or goes.
func (l *pullLeases) deleteEarlier(ctx context.Context, names []string) {
	for _, name := range names {
		if err := l.delete(ctx, l.of(name)); err != nil {
			// They expire in time.
			klog.ErrorS(err, "Failed to remove the downloads of an earlier pull; they stay until they expire", "image", name)
		}
	}
}

// keepForRetry ends a pull and leaves its downloads for the next try, which
// takes over into its own lease what it can use of them.
func (l *pullLeases) keepForRetry(ctx context.Context, name string) {
	id, _ := leases.FromContext(ctx)
	l.retain(id, name)
}

func (l *pullLeases) retain(id, name string) {
	l.mu.Lock()
	l.retained[id] = retainedLease{name: name, since: time.Now()}
	l.mu.Unlock()
	time.AfterFunc(retryWindow+time.Second, l.expired)
}

func (l *pullLeases) of(name string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id, r := range l.retained {
		if r.name == name {
			ids = append(ids, id)
		}
	}
	return ids
}

// expire deletes the leases for which no retry came.
func (l *pullLeases) expire(ctx context.Context) error {
	var ids []string
	l.mu.Lock()
	for id, r := range l.retained {
		if time.Since(r.since) > retryWindow {
			ids = append(ids, id)
		}
	}
	l.mu.Unlock()
	return l.delete(ctx, ids)
}

func (l *pullLeases) delete(ctx context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		crashpoint.Here("before image lease removal")
		if err := l.backend.leases.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove lease %s: %w", id, err))
			continue
		}
		crashpoint.Here("after image lease removal")
		l.mu.Lock()
		delete(l.retained, id)
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

// adopt keeps the downloads that an earlier process has left for a retry.
func (l *pullLeases) adopt(ctx context.Context) error {
	list, err := l.backend.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, one := range list {
		l.retain(one.ID, one.Labels[labelName])
	}
	return nil
}

// deleteAll deletes what earlier processes have left.
func (l *pullLeases) deleteAll(ctx context.Context) error {
	list, err := l.backend.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, one := range list {
		if err := l.backend.leases.Delete(ctx, one); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", one.ID, err)
		}
	}
	return nil
}

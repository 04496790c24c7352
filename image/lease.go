package image

import (
	"context"
	"errors"
	"fmt"
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

// lease opens a new lease for one pull. Whatever is written, or found present,
// with the returned context stays until the lease is deleted.
func (s *Store) lease(ctx context.Context, name string) (context.Context, error) {
	crashpoint.Here("before image lease")
	l, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithLabel(labelName, name))
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	crashpoint.Here("after image lease")
	return leases.WithLease(ctx, l.ID), nil
}

// release ends the lease of a pull that succeeded, and those of earlier tries
// for the same name.
func (s *Store) release(ctx context.Context, name string) {
	s.keepForRetry(ctx, name)
	if err := s.deleteLeases(ctx, s.leasesOf(name)); err != nil {
		// They expire in time; the image is complete.
		klog.ErrorS(err, "Failed to remove the leases of a finished pull; its downloads stay until they expire", "image", name)
	}
	s.sweepSoon()
}

// deleteDownloads deletes what a pull and earlier tries for the same name have left. It
// returns when the space is free: the disk may be full.
func (s *Store) deleteDownloads(ctx context.Context, name string) {
	defer s.reserve.lend()()
	s.doubtful.Store(true)
	s.keepForRetry(ctx, name)
	err := errors.Join(s.deleteLeases(ctx, s.leasesOf(name)), s.sweep(ctx))
	if err != nil && s.ctx.Err() == nil {
		klog.ErrorS(err, "Failed to remove the downloads of a failed pull; they stay until they expire", "image", name)
	}
}

// deleteEarlierDownloads deletes what earlier pulls of these names have left for a retry that
// will not come: the image is complete, or goes.
func (s *Store) deleteEarlierDownloads(ctx context.Context, names []string) {
	for _, name := range names {
		if err := s.deleteLeases(ctx, s.leasesOf(name)); err != nil {
			// They expire in time.
			klog.ErrorS(err, "Failed to remove the downloads of an earlier pull; they stay until they expire", "image", name)
		}
	}
}

// keepForRetry ends a pull and leaves its downloads for the next try, which
// takes over into its own lease what it can use of them.
func (s *Store) keepForRetry(ctx context.Context, name string) {
	id, _ := leases.FromContext(ctx)
	s.retain(id, name)
}

func (s *Store) retain(id, name string) {
	s.pullMu.Lock()
	s.retained[id] = retainedLease{name: name, since: time.Now()}
	s.pullMu.Unlock()
	time.AfterFunc(retryWindow+time.Second, s.sweepSoon)
}

func (s *Store) leasesOf(name string) []string {
	s.pullMu.Lock()
	defer s.pullMu.Unlock()
	var ids []string
	for id, l := range s.retained {
		if l.name == name {
			ids = append(ids, id)
		}
	}
	return ids
}

// expireLeases deletes the leases for which no retry came.
func (s *Store) expireLeases(ctx context.Context) error {
	var ids []string
	s.pullMu.Lock()
	for id, l := range s.retained {
		if time.Since(l.since) > retryWindow {
			ids = append(ids, id)
		}
	}
	s.pullMu.Unlock()
	return s.deleteLeases(ctx, ids)
}

func (s *Store) deleteLeases(ctx context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		crashpoint.Here("before image lease removal")
		if err := s.leases.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove lease %s: %w", id, err))
			continue
		}
		crashpoint.Here("after image lease removal")
		s.pullMu.Lock()
		delete(s.retained, id)
		s.pullMu.Unlock()
	}
	return errors.Join(errs...)
}

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// sweepLoop collects garbage, one collection at a time. It is the only place
// where trees of layers are deleted.
func (s *Store) sweepLoop() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case done := <-s.sweeps:
			err := s.collect(s.ctx)
			if done != nil {
				done <- err
			} else if err != nil && s.ctx.Err() == nil {
				klog.ErrorS(err, "Failed to collect image garbage; the next collection tries again")
			}
		}
	}
}

// sweep runs a collection that starts after the call, and waits for it.
func (s *Store) sweep(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case s.sweeps <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// sweepSoon asks for a collection and does not wait. One that is already queued
// has not started and will do.
func (s *Store) sweepSoon() {
	select {
	case s.sweeps <- nil:
	default:
	}
}

// collect deletes blobs, unfinished downloads and layers that nothing refers
// to, and the writable layers on their way out.
func (s *Store) collect(ctx context.Context) error {
	crashpoint.Here("before image collection")
	errs := []error{s.expireLeases(ctx)}
	if s.doubtful.Swap(false) {
		if err := s.markDirty(ctx); err != nil {
			s.doubtful.Store(true) // still
			errs = append(errs, err)
		}
	}
	if _, err := s.db.GarbageCollect(ctx); err != nil {
		errs = append(errs, fmt.Errorf("collect image garbage: %w", err))
	}
	crashpoint.Here("within image collection")
	// The collection deletes what it dropped itself; this is for what an
	// interrupted one left behind.
	if c, ok := s.overlay.(snapshots.Cleaner); ok {
		// Not found: not even the books of a first layer.
		if err := c.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("clean up layers: %w", err))
		}
	}
	trash := filepath.Join(s.opts.Root, "trash")
	entries, err := os.ReadDir(trash)
	errs = append(errs, err)
	for _, e := range entries {
		if err := removeTree(filepath.Join(trash, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", filepath.Join(trash, e.Name()), err))
		}
	}
	crashpoint.Here("after image collection")
	return errors.Join(errs...)
}

// markDirty makes the next collection compare disk and metadata. It does so only
// for a backend from which it has something to delete, so each gets an item that
// nothing refers to. Needed after a crash or a full disk, when files may exist of
// which the metadata knows nothing.
func (s *Store) markDirty(ctx context.Context) error {
	waste := []byte("waste")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(waste), Size: int64(len(waste))}
	if err := content.WriteBlob(ctx, s.content, "waste", bytes.NewReader(waste), desc); err != nil {
		return fmt.Errorf("prepare collection of blobs: %w", err)
	}
	if _, err := s.snapshots.Prepare(ctx, "waste", ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("prepare collection of layers: %w", err)
	}
	return nil
}

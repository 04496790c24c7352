package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// collector owns the deletion of what nothing refers to any more.
type collector struct {
	dirs     layout
	backend  *backend
	leases   *pullLeases
	ctx      context.Context // ends with Close
	requests chan chan error
	// doubtful: the disk may hold what the metadata does not know.
	doubtful atomic.Bool
}

func newCollector(ctx context.Context, dirs layout, b *backend) *collector {
	return &collector{dirs: dirs, backend: b, ctx: ctx, requests: make(chan chan error, 1)}
}

// run collects garbage, one collection at a time. It is the only place
// where trees of layers are deleted.
func (c *collector) run() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case done := <-c.requests:
			err := c.collect(c.ctx)
			if done != nil {
				done <- err
			} else if err != nil && c.ctx.Err() == nil {
				klog.ErrorS(err, "Failed to collect image garbage; the next collection tries again")
			}
		}
	}
}

// sweep runs a collection that starts after the call, and waits for it.
func (c *collector) sweep(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case c.requests <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// sweepSoon asks for a collection and does not wait. One that is already queued
// has not started and will do.
func (c *collector) sweepSoon() {
	select {
	case c.requests <- nil:
	default:
	}
}

// collect deletes blobs, unfinished downloads and layers that nothing refers
// to, and the writable layers on their way out.
func (c *collector) collect(ctx context.Context) error {
	crashpoint.Here("before image collection")
	errs := []error{c.leases.expire(ctx)}
	if c.doubtful.Swap(false) {
		if err := c.markDirty(ctx); err != nil {
			c.doubtful.Store(true) // still
			errs = append(errs, err)
		}
	}
	if _, err := c.backend.db.GarbageCollect(ctx); err != nil {
		errs = append(errs, fmt.Errorf("collect image garbage: %w", err))
	}
	crashpoint.Here("within image collection")
	// The collection deletes what it dropped itself; this is for what an
	// interrupted one left behind.
	if cleaner, ok := c.backend.overlay.(snapshots.Cleaner); ok {
		// Not found: not even the books of a first layer.
		if err := cleaner.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("clean up layers: %w", err))
		}
	}
	trash := c.dirs.trash()
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
func (c *collector) markDirty(ctx context.Context) error {
	waste := []byte("waste")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(waste), Size: int64(len(waste))}
	if err := content.WriteBlob(ctx, c.backend.content, "waste", bytes.NewReader(waste), desc); err != nil {
		return fmt.Errorf("prepare collection of blobs: %w", err)
	}
	if _, err := c.backend.snapshots.Prepare(ctx, "waste", ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("prepare collection of layers: %w", err)
	}
	return nil
}

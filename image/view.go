package image

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// viewPrefix marks the view of a chain among the snapshots.
const viewPrefix = "view-"

// labelRoot makes a snapshot a root of the garbage collection.
const labelRoot = "containerd.io/gc.root"

// ensureView holds a chain against garbage collection until dropUnusedView, and
// returns its layer directories relative to the snapshots directory, topmost first.
func (c *catalog) ensureView(ctx context.Context, chain string) ([]string, error) {
	key := viewPrefix + chain
	mounts, err := c.backend.snapshots.Mounts(ctx, key)
	if errdefs.IsNotFound(err) {
		crashpoint.Here("before layer view")
		mounts, err = c.backend.snapshots.View(ctx, key, chain,
			snapshots.WithLabels(map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339)}))
		crashpoint.Here("after layer view")
	}
	if err != nil {
		return nil, fmt.Errorf("view layers %s: %w", chain, err)
	}
	return lowerDirs(c.dirs.snapshots(), chain, mounts)
}

// lowerDirs takes the directories out of the snapshotter's answer, which is a
// bind mount for one layer and an overlay for more. They lie below top, and are
// returned relative to it.
func lowerDirs(top, chain string, mounts []mount.Mount) ([]string, error) {
	var paths []string
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		paths = []string{mounts[0].Source}
	} else if len(mounts) == 1 {
		for _, o := range mounts[0].Options {
			if list, ok := strings.CutPrefix(o, "lowerdir="); ok {
				paths = strings.Split(list, ":")
			}
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("view layers %s: no directory in %v: %w", chain, mounts, errdefs.ErrInternal)
	}
	for i, p := range paths {
		rel, err := filepath.Rel(top, p)
		if err != nil || !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("view layers %s: directory %s lies outside of the store: %w", chain, p, errdefs.ErrInternal)
		}
		paths[i] = rel
	}
	return paths, nil
}

// dropUnusedView releases a chain unless an image or a root file system needs it, and
// reports whether it did.
func (c *catalog) dropUnusedView(ctx context.Context, chain string) (bool, error) {
	c.change.Lock()
	defer c.change.Unlock()
	return c.dropUnusedViewLocked(ctx, chain)
}

// dropUnusedViewLocked is dropUnusedView for callers that have the lock.
//
// +checklocks:c.change
func (c *catalog) dropUnusedViewLocked(ctx context.Context, chain string) (bool, error) {
	if chain == "" || c.known.uses(chain) {
		return false, nil
	}
	if err := c.backend.snapshots.Remove(ctx, viewPrefix+chain); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("release layers %s: %w", chain, err)
	}
	return true, nil
}

// dropUnusedViews releases all chains that nothing needs.
func (c *catalog) dropUnusedViews(ctx context.Context) error {
	views, err := c.backend.snapshotNames(ctx, isView)
	if err != nil {
		return err
	}
	c.change.Lock()
	defer c.change.Unlock()
	for _, view := range views {
		if _, err := c.dropUnusedViewLocked(ctx, strings.TrimPrefix(view, viewPrefix)); err != nil {
			return err
		}
	}
	return nil
}

// isView says whether a snapshot is the view of a chain.
func isView(info snapshots.Info) bool { return strings.HasPrefix(info.Name, viewPrefix) }

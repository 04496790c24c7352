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

// ensureView holds a chain against garbage collection until dropView, and
// returns its layer directories relative to the snapshots directory, topmost first.
func (s *Store) ensureView(ctx context.Context, chain string) ([]string, error) {
	key := viewPrefix + chain
	mounts, err := s.snapshots.Mounts(ctx, key)
	if errdefs.IsNotFound(err) {
		crashpoint.Here("before layer view")
		mounts, err = s.snapshots.View(ctx, key, chain,
			snapshots.WithLabels(map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339)}))
		crashpoint.Here("after layer view")
	}
	if err != nil {
		return nil, fmt.Errorf("view layers %s: %w", chain, err)
	}
	return s.lowerDirs(chain, mounts)
}

// lowerDirs takes the directories out of the snapshotter's answer, which is a
// bind mount for one layer and an overlay for more.
func (s *Store) lowerDirs(chain string, mounts []mount.Mount) ([]string, error) {
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
		rel, err := filepath.Rel(s.snapshotsDir(), p)
		if err != nil || !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("view layers %s: directory %s lies outside of the store: %w", chain, p, errdefs.ErrInternal)
		}
		paths[i] = rel
	}
	return paths, nil
}

// dropUnusedView releases a chain unless an image or a writable layer needs it,
// and reports whether it did. Caller holds change.
func (s *Store) dropUnusedView(ctx context.Context, chain string) (bool, error) {
	if chain == "" || s.chainUsed(chain) {
		return false, nil
	}
	if err := s.snapshots.Remove(ctx, viewPrefix+chain); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("release layers %s: %w", chain, err)
	}
	return true, nil
}

func (s *Store) chainUsed(chain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, held := range s.holds {
		if held == chain {
			return true
		}
	}
	return s.index.usesChain(chain)
}

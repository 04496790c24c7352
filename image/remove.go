package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// Remove forgets an image and all its names, whichever name or id it is given
// (as CRI's RemoveImage demands), and deletes what nothing else needs. Layers
// that a container uses stay until its root file system is gone. An unknown
// image is no error.
func (s *Store) Remove(ctx context.Context, nameOrID string) error {
	defer s.reserve.lend()()
	removed, err := s.catalog.removeNames(scoped(ctx), nameOrID)
	if err == nil && removed {
		err = s.collector.sweep(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", shortName(nameOrID), diskError(err))
	}
	return nil
}

// removeNames removes the names of an image and what stands on them, and reports
// whether there was such an image.
func (c *catalog) removeNames(ctx context.Context, nameOrID string) (bool, error) {
	c.change.Lock()
	defer c.change.Unlock()

	img, err := c.known.current().find(nameOrID)
	if errdefs.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	crashpoint.Here("before removal of image names")
	names := slices.Concat(img.RepoTags, img.RepoDigests)
	if err := c.deleteNames(ctx, names); err != nil {
		return false, err
	}
	crashpoint.Here("after removal of image names")
	if _, err := c.reindex(ctx, nil); err != nil {
		return false, err
	}
	c.leases.deleteEarlier(ctx, names)
	if _, err := c.dropUnusedViewLocked(ctx, img.layers.chain); err != nil {
		return false, err
	}
	crashpoint.Here("after removal of layer view")
	return true, nil
}

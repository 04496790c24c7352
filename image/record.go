package image

import (
	"context"
	"errors"
	"slices"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// recordKnown handles the pull of an image that is here already, perhaps under
// another name: the registry has confirmed the digest and our access to it.
func (c *catalog) recordKnown(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, bool, error) {
	if c.known.current().targets[target.Digest] == nil {
		return Image{}, false, nil
	}
	c.change.Lock()
	defer c.change.Unlock()
	if c.known.current().targets[target.Digest] == nil { // removed meanwhile
		return Image{}, false, nil
	}
	img, err := c.recordLocked(ctx, named, target)
	if err == nil {
		// Of a pull that was cut off after its names had been recorded.
		c.leases.deleteEarlier(ctx, []string{named.String()})
	}
	return img, err == nil, err
}

// record makes a complete image known under its names.
func (c *catalog) record(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, error) {
	c.change.Lock()
	defer c.change.Unlock()
	return c.recordLocked(ctx, named, target)
}

// recordLocked is record for callers that have the lock.
//
// +checklocks:c.change
func (c *catalog) recordLocked(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, error) {
	// Only what identifies the image: a registry may add what it likes.
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	names := slices.DeleteFunc(recordedNames(named, target.Digest), func(name string) bool {
		return c.known.current().names[name] == target.Digest
	})
	if len(names) == 0 { // what a pull with the policy "always" finds most of the time
		x := c.known.current()
		return *x.byID[x.targets[target.Digest].ID], nil
	}
	img := c.known.current().targets[target.Digest]
	if img == nil {
		var err error
		if img, err = c.load(ctx, target); err != nil {
			return Image{}, err
		}
	}
	crashpoint.Here("before image names")
	err := c.putNames(ctx, names, target)
	crashpoint.Here("after image names")
	if err == nil {
		_, err = c.reindex(ctx, targets{target.Digest: img})
	}
	if err != nil {
		_, dropErr := c.dropUnusedViewLocked(context.WithoutCancel(ctx), img.layers.chain)
		return Image{}, errors.Join(err, dropErr)
	}
	return *c.known.current().byID[img.ID], nil
}

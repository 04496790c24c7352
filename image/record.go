package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recordKnown handles the pull of an image that is here already, perhaps under
// another name: the registry has confirmed the digest and our access to it.
func (s *Store) recordKnown(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, bool, error) {
	known := func() bool { return s.current().targets[target.Digest] != nil }
	if !known() {
		return Image{}, false, nil
	}
	s.change.Lock()
	defer s.change.Unlock()
	if !known() { // removed meanwhile
		return Image{}, false, nil
	}
	img, err := s.recordLocked(ctx, named, target)
	return img, err == nil, err
}

// record makes a complete image known under its names.
func (s *Store) record(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, error) {
	s.change.Lock()
	defer s.change.Unlock()
	return s.recordLocked(ctx, named, target)
}

func (s *Store) recordLocked(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, error) {
	// Only what identifies the image: a registry may add what it likes.
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	changed := false
	for _, name := range recordedNames(named, target.Digest) {
		if s.current().names[name] == target.Digest {
			continue // what a pull with the policy "always" finds most of the time
		}
		changed = true
		if err := s.putName(ctx, images.Image{Name: name, Target: target}); err != nil {
			return Image{}, fmt.Errorf("record image name %s: %w", name, err)
		}
	}
	if changed {
		if _, err := s.reindex(ctx); err != nil {
			return Image{}, err
		}
	}
	img := s.current().targets[target.Digest]
	if img == nil {
		return Image{}, fmt.Errorf("image %s cannot be read back: %w", named, errdefs.ErrInternal)
	}
	return *s.current().byID[img.ID], nil
}

func (s *Store) putName(ctx context.Context, record images.Image) error {
	_, err := s.names.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = s.names.Update(ctx, record, "target")
	}
	return err
}

package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// recordKnown handles the pull of an image that is here already, perhaps under
// another name: the registry has confirmed the digest and our access to it.
func (s *Store) recordKnown(ctx context.Context, named reference.Named, target ocispec.Descriptor) (Image, bool, error) {
	if s.current().targets[target.Digest] == nil {
		return Image{}, false, nil
	}
	s.change.Lock()
	defer s.change.Unlock()
	if s.current().targets[target.Digest] == nil { // removed meanwhile
		return Image{}, false, nil
	}
	img, err := s.recordLocked(ctx, named, target)
	if err == nil {
		// Of a pull that was cut off after its names had been recorded.
		s.deleteEarlierDownloads(ctx, []string{named.String()})
		s.sweepSoon()
	}
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
	names := slices.DeleteFunc(recordedNames(named, target.Digest), func(name string) bool {
		return s.current().names[name] == target.Digest
	})
	if len(names) == 0 { // what a pull with the policy "always" finds most of the time
		x := s.current()
		return *x.byID[x.targets[target.Digest].ID], nil
	}
	img := s.current().targets[target.Digest]
	if img == nil {
		var err error
		if img, err = s.load(ctx, target); err != nil {
			return Image{}, err
		}
	}
	crashpoint.Here("before image names")
	err := s.putNames(ctx, names, target)
	crashpoint.Here("after image names")
	if err == nil {
		_, err = s.reindex(ctx, targets{target.Digest: img})
	}
	if err != nil {
		_, dropErr := s.dropUnusedView(context.WithoutCancel(ctx), img.layers.chain)
		return Image{}, errors.Join(err, dropErr)
	}
	return *s.current().byID[img.ID], nil
}

// putNames points all names at a target, or none.
func (s *Store) putNames(ctx context.Context, names []string, target ocispec.Descriptor) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			record := images.Image{Name: name, Target: target}
			_, err := s.names.Create(ctx, record)
			if errdefs.IsAlreadyExists(err) {
				_, err = s.names.Update(ctx, record, "target")
			}
			if err != nil {
				return fmt.Errorf("record image name %s: %w", name, err)
			}
		}
		return nil
	})
}

// deleteNames forgets all names, or none.
func (s *Store) deleteNames(ctx context.Context, names []string) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			if err := s.names.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove image name %s: %w", name, err)
			}
		}
		return nil
	})
}

package image

import "github.com/cri-sandbox/cri-sandbox/internal/idmap"

// MountVolume mounts the root of an image at target, which is created, to be read and
// run only: an image as a volume. On the host its files belong to the ids that ids gives
// those of the image. The key is of the same kind as MountRootfs's, and has the same
// meaning: until UnmountRootfs with it the layers stay, also over a restart. Errors are
// those of MountRootfs.
func (s *Store) MountVolume(key string, img Image, target string, ids idmap.Mapping) error {
	return s.MountReadOnly(key, img, target, ids)
}

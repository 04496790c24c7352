package image

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// applier unpacks a layer into the directory of a new snapshot. It exists beside
// containerd's own because that one takes no filter: an entry that points out of
// its layer is turned inwards there, and refused here.
type applier struct {
	blobs  content.Provider
	diffID func(blob digest.Digest) digest.Digest // what the image's config says
	budget *budget
}

// badLayer is an error of the layer's own, which no retry will cure. A full disk
// is inside of it, too; see classify.
type badLayer struct{ err error }

func (e badLayer) Error() string { return e.err.Error() }
func (e badLayer) Unwrap() error { return e.err }

// Apply implements diff.Applier.
func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if _, err := images.DiffCompression(ctx, desc.MediaType); err != nil {
		return ocispec.Descriptor{}, badLayer{fmt.Errorf("layer type %s is not supported", desc.MediaType)}
	}
	dir, parents, err := layerDirs(mounts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	blob, err := a.blobs.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read layer %s: %w", desc.Digest, err)
	}
	defer blob.Close()
	plain, err := decompress(content.NewReader(blob))
	if err != nil {
		return ocispec.Descriptor{}, badLayer{fmt.Errorf("decompress layer %s: %w", desc.Digest, err)}
	}
	defer plain.Close()

	sum := digest.Canonical.Digester()
	counted := a.budget.reader(io.TeeReader(plain, sum.Hash()))
	inside := entries{budget: a.budget, root: dir}
	opts := []archive.ApplyOpt{archive.WithFilter(inside.check)}
	if len(parents) > 0 {
		opts = append(opts,
			archive.WithConvertWhiteout(archive.OverlayConvertWhiteout),
			// A directory that this layer uses without listing it takes mode and
			// owner from the layers below. This works only because layers of an
			// image are unpacked one after the other.
			archive.WithParents(parents))
	}
	crashpoint.Here("before layer unpack")
	if _, err := archive.Apply(ctx, dir, counted, opts...); err != nil {
		return ocispec.Descriptor{}, badLayer{fmt.Errorf("unpack layer %s: %w", desc.Digest, err)}
	}
	crashpoint.Here("after layer unpack")
	// The digest covers what follows the archive's end, as well.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return ocispec.Descriptor{}, badLayer{fmt.Errorf("read layer %s: %w", desc.Digest, err)}
	}
	if want := a.diffID(desc.Digest); sum.Digest() != want {
		return ocispec.Descriptor{}, badLayer{fmt.Errorf("layer %s holds %s where the image's config says %s",
			desc.Digest, sum.Digest(), want)}
	}
	if err := writeFIFOs(dir, inside.fifos); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum.Digest(), Size: counted.n}, nil
}

// layerDirs takes the directory to fill, and those of the layers below it, from
// the snapshotter's answer: a bind mount for the lowest layer, else an overlay.
func layerDirs(mounts []mount.Mount) (dir string, parents []string, _ error) {
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return mounts[0].Source, nil, nil
	}
	if len(mounts) == 1 && mounts[0].Type == "overlay" {
		for _, o := range mounts[0].Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				dir = v
			} else if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				parents = strings.Split(v, ":")
			}
		}
	}
	if dir == "" {
		return "", nil, fmt.Errorf("unpack layer: no directory in mounts %v", mounts)
	}
	return dir, parents, nil
}

func staysInside(name string) bool {
	name = filepath.Clean(name)
	return name != ".." && !strings.HasPrefix(name, "../")
}

package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"k8s.io/klog/v2"
)

// catalog owns which images there are: their names in the database, the index of them,
// and the views that hold their layers.
type catalog struct {
	dirs    layout
	backend *backend
	known   *inventory
	leases  *pullLeases // +checklocksignore: does not change
	pinned  Pinned      // +checklocksignore: likewise

	change sync.Mutex // see the package comment
}

// reindex rebuilds the index from the recorded names and publishes it. Images
// that are in the current index, or in fresh, are not read again. Names whose
// image is not complete are left out and returned.
//
// +checklocks:c.change
func (c *catalog) reindex(ctx context.Context, fresh targets) (broken []string, _ error) {
	records, err := c.backend.names.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list image names: %w", err)
	}
	known := c.known.current().targets
	x := &index{
		byID:    map[string]*Image{},
		byName:  map[string]*Image{},
		names:   map[string]digest.Digest{},
		targets: targets{},
	}
	for _, r := range records {
		img := x.targets[r.Target.Digest]
		if img == nil {
			var err error
			if img = cmp.Or(known[r.Target.Digest], fresh[r.Target.Digest]); img == nil {
				img, err = c.load(ctx, r.Target)
			}
			if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
				klog.ErrorS(err, "Failed to load an image that is not complete; its name is dropped", "name", r.Name)
				broken = append(broken, r.Name)
				continue
			} else if err != nil {
				return nil, fmt.Errorf("load image %s: %w", r.Name, err)
			}
			x.targets[r.Target.Digest] = img
		}
		x.names[r.Name] = r.Target.Digest
		x.add(r.Name, img)
	}
	x.sort()
	for _, img := range x.images {
		img.Pinned = c.pinned.match(img.RepoTags) || c.pinned.match(img.RepoDigests)
	}

	c.known.publish(x)
	return broken, nil
}

// dropBroken makes the index of a store that is being opened. The names of images that
// are not complete are forgotten; it reports whether there were any.
func (c *catalog) dropBroken(ctx context.Context) (bool, error) {
	c.change.Lock()
	defer c.change.Unlock()
	broken, err := c.reindex(ctx, nil)
	if err != nil {
		return false, err
	}
	return len(broken) > 0, c.deleteNames(ctx, broken)
}

// load reads what a name points at: an index or a manifest, its config, and the
// view of its layers, which it creates when there is none.
func (c *catalog) load(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	manifest, err := images.Manifest(ctx, c.backend.content, target, platforms.Default())
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", target.Digest, err)
	}
	blob, err := content.ReadBlob(ctx, c.backend.content, manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("read image config %s: %w", manifest.Config.Digest, err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("decode image config %s: %v: %w", manifest.Config.Digest, err, errdefs.ErrInvalidArgument)
	}
	img := &Image{ID: manifest.Config.Digest.String(), Config: config.Config}
	if config.Created != nil {
		img.Created = *config.Created
	}
	if img.layers, err = c.openLayers(ctx, config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	img.Size = img.layers.size + uint64(target.Size) + uint64(manifest.Config.Size)
	return img, nil
}

// openLayers makes sure that the chain of these layers is held, and finds its
// directories and size.
func (c *catalog) openLayers(ctx context.Context, diffIDs []digest.Digest) (layers, error) {
	if len(diffIDs) == 0 {
		return layers{}, nil
	}
	chains := identity.ChainIDs(slices.Clone(diffIDs))
	l := layers{chain: chains[len(chains)-1].String()}
	var err error
	if l.lower, err = c.ensureView(ctx, l.chain); err != nil {
		return layers{}, err
	}
	for _, chain := range chains {
		u, err := c.backend.snapshots.Usage(ctx, chain.String())
		if err != nil {
			return layers{}, fmt.Errorf("measure layer %s: %w", chain, err)
		}
		l.size += uint64(u.Size)
	}
	return l, nil
}

// putNames points all names at a target, or none.
func (c *catalog) putNames(ctx context.Context, names []string, target ocispec.Descriptor) error {
	return c.backend.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			record := images.Image{Name: name, Target: target}
			_, err := c.backend.names.Create(ctx, record)
			if errdefs.IsAlreadyExists(err) {
				_, err = c.backend.names.Update(ctx, record, "target")
			}
			if err != nil {
				return fmt.Errorf("record image name %s: %w", name, err)
			}
		}
		return nil
	})
}

// deleteNames forgets all names, or none.
func (c *catalog) deleteNames(ctx context.Context, names []string) error {
	return c.backend.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			if err := c.backend.names.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove image name %s: %w", name, err)
			}
		}
		return nil
	})
}

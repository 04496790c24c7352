package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// maxDocument bounds manifests and configs, which are read into memory. It is
// what registries accept for manifests.
const maxDocument = 4 << 20

// pullWith resolves a name, gets what is missing of the image, and records it.
func (p *puller) pullWith(ctx context.Context, named reference.Named, conn *connection) (Image, error) {
	crashpoint.Here("before image resolve")
	_, target, err := conn.resolver.Resolve(ctx, named.String())
	if err != nil {
		return Image{}, fmt.Errorf("resolve: %w", err)
	}
	if err := checkDocument(target); err != nil {
		return Image{}, err
	}
	if img, ok, err := p.catalog.recordKnown(ctx, named, target); ok || err != nil {
		if ok {
			p.collector.sweepSoon()
		}
		return img, err
	}
	ctx, err = p.leases.open(ctx, named.String())
	if err != nil {
		return Image{}, err
	}
	img, err := p.pullLeased(ctx, named, target, conn)
	cause := context.Cause(ctx)
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if cause == nil {
			cause = err
		}
		if retryable(classify(cause)) {
			p.leases.keepForRetry(ctx, named.String())
		} else {
			p.deleteDownloads(ctx, named.String())
		}
		return Image{}, err
	}
	p.leases.finish(ctx, named.String())
	p.collector.sweepSoon()
	return img, nil
}

// deleteDownloads deletes what a pull and earlier tries for the same name have left. It
// returns when the space is free: the disk may be full.
func (p *puller) deleteDownloads(ctx context.Context, name string) {
	defer p.reserve.lend()()
	p.collector.doubtful.Store(true)
	err := errors.Join(p.leases.end(ctx, name), p.collector.sweep(ctx))
	if err != nil && p.ctx.Err() == nil {
		klog.ErrorS(err, "Failed to remove the downloads of a failed pull; they stay until they expire", "image", name)
	}
}

// pullLeased does the part of a pull that puts things on disk. All of them
// belong to the lease in ctx.
func (p *puller) pullLeased(ctx context.Context, named reference.Named, target ocispec.Descriptor, conn *connection) (Image, error) {
	fetcher, err := conn.resolver.Fetcher(ctx, named.String())
	if err != nil {
		return Image{}, fmt.Errorf("reach registry: %w", err)
	}
	if err := p.download(ctx, fetcher, target); err != nil {
		return Image{}, err
	}
	crashpoint.Here("before image flush")
	// Blobs and databases are flushed by those who write them, unpacked files
	// are not. Without this, a power cut after the names have been recorded
	// would leave an image with empty files that passes for complete.
	if err := p.mounts.flush(); err != nil {
		return Image{}, fmt.Errorf("flush layers: %w", err)
	}
	crashpoint.Here("after image flush")
	return p.catalog.record(ctx, named, target)
}

// download fetches an image and unpacks its layers, each as soon as it and
// those below it are there. No file of it is written any more when it returns.
func (p *puller) download(ctx context.Context, fetcher remotes.Fetcher, target ocispec.Descriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &visit{content: p.backend.content, platform: platforms.Default(), budget: newBudget(p.opts.Limits), diffIDs: map[digest.Digest]digest.Digest{}}
	unpacker, err := unpack.NewUnpacker(ctx, p.backend.content,
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform:       v.platform,
			SnapshotterKey: snapshotterName,
			Snapshotter:    p.backend.snapshots,
			Applier:        applier{blobs: p.backend.content, diffID: v.diffID, budget: v.budget},
		}),
		unpack.WithLimiter(p.slots),
		unpack.WithDuplicationSuppressor(&p.unpacking),
		// No unpack limiter: with one, layers of an image are unpacked at the
		// same time, and directories that a layer does not list itself lose the
		// mode that a layer below gave them.
	)
	if err != nil {
		return fmt.Errorf("prepare unpack: %w", err)
	}
	// The unpacker gives up on the first error without waiting for its other
	// downloads; the group of handlers does.
	var g handlerGroup
	handler := unpacker.Unpack(g.add(images.Handlers(
		images.HandlerFunc(v.before),
		fetchChecked(p.backend.content, fetcher),
		images.HandlerFunc(v.after),
	)))
	err = images.Dispatch(ctx, handler, nil, target)
	if err != nil {
		cancel()
	}
	_, unpackErr := unpacker.Wait()
	cancel()
	g.close()
	// An unpack that failed is why the downloads were cancelled, or the reverse.
	if err == nil || errors.Is(err, context.Canceled) && unpackErr != nil {
		err = unpackErr
	}
	if err == nil && !v.usable() {
		err = fmt.Errorf("no image for platform %s: %w", platforms.DefaultString(), errdefs.ErrNotFound)
	}
	return err
}

// visit is what one pull learns about its image on the way down from the index.
type visit struct {
	content  content.Store
	platform platforms.MatchComparer
	budget   *budget

	mu       sync.Mutex
	manifest *ocispec.Manifest // +checklocks:mu
	// Seen and found good.
	config bool // +checklocks:mu
	// Layer blob → its uncompressed digest.
	diffIDs map[digest.Digest]digest.Digest // +checklocks:mu
}

// before looks at a descriptor ahead of fetching what it describes.
func (v *visit) before(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	crashpoint.Here("before blob fetch")
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("descriptor: %v: %w", err, errdefs.ErrInvalidArgument)
	}
	if !images.IsLayerType(desc.MediaType) {
		if err := v.budget.document(); err != nil {
			return nil, err
		}
		return nil, checkDocument(desc)
	}
	return nil, nil
}

// after looks at what has been fetched and returns what to go on with.
func (v *visit) after(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	crashpoint.Here("after blob commit")
	switch {
	case images.IsIndexType(desc.MediaType), images.IsManifestType(desc.MediaType):
		if images.IsManifestType(desc.MediaType) {
			if err := v.readManifest(ctx, desc); err != nil {
				return nil, err
			}
		}
		return v.children(ctx, desc)
	case images.IsConfigType(desc.MediaType):
		return nil, v.readConfig(ctx, desc)
	}
	return nil, nil
}

// children lists what an index or a manifest refers to: of an index, the one
// manifest for this machine. Labels tie all but the layers to it: unpacked, they
// are no longer needed as blobs.
func (v *visit) children(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list := images.SetChildrenMappedLabels(v.content, images.ChildrenHandler(v.content), images.ChildGCLabelsFilterLayers)
	list = images.LimitManifests(images.FilterPlatforms(list, v.platform), v.platform, 1)
	children, err := list(ctx, desc)
	for i := range children {
		// An image may name URLs to get a blob from, and the fetcher would go
		// there first, from inside of the node's network.
		children[i].URLs = nil
	}
	return children, err
}

func (v *visit) readManifest(ctx context.Context, desc ocispec.Descriptor) error {
	var m ocispec.Manifest
	if err := v.read(ctx, desc, &m); err != nil {
		return err
	}
	return v.takeManifest(m)
}

func (v *visit) takeManifest(m ocispec.Manifest) error {
	if !images.IsConfigType(m.Config.MediaType) {
		return fmt.Errorf("it is not a container image but an artifact of type %q: %w",
			m.Config.MediaType, errdefs.ErrInvalidArgument)
	}
	for _, l := range m.Layers {
		if !images.IsLayerType(l.MediaType) {
			return fmt.Errorf("layer type %q is not supported: %w", l.MediaType, errdefs.ErrInvalidArgument)
		}
	}
	if err := v.budget.manifest(m.Layers); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.manifest = &m
	return nil
}

func (v *visit) readConfig(ctx context.Context, desc ocispec.Descriptor) error {
	var c ocispec.Image
	if err := v.read(ctx, desc, &c); err != nil {
		return err
	}
	return v.takeConfig(desc.Digest, c)
}

func (v *visit) takeConfig(id digest.Digest, c ocispec.Image) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.manifest == nil || v.manifest.Config.Digest != id {
		return fmt.Errorf("config %s belongs to no manifest: %w", id, errdefs.ErrInvalidArgument)
	}
	if !v.platform.Match(platforms.Normalize(c.Platform)) {
		return fmt.Errorf("image is for platform %s, not %s: %w",
			platforms.Format(c.Platform), platforms.DefaultString(), errdefs.ErrNotFound)
	}
	if len(c.RootFS.DiffIDs) != len(v.manifest.Layers) {
		return fmt.Errorf("image has %d layers, its config describes %d: %w",
			len(v.manifest.Layers), len(c.RootFS.DiffIDs), errdefs.ErrInvalidArgument)
	}
	for i, id := range c.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("image config: layer %d: %v: %w", i, err, errdefs.ErrInvalidArgument)
		}
		v.diffIDs[v.manifest.Layers[i].Digest] = id
	}
	v.config = true
	return nil
}

func (v *visit) read(ctx context.Context, desc ocispec.Descriptor, into any) error {
	blob, err := content.ReadBlob(ctx, v.content, desc)
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(blob, into); err != nil {
		return fmt.Errorf("decode %s: %v: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (v *visit) usable() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.config
}

// diffID is what a layer must amount to once it is uncompressed.
func (v *visit) diffID(blob digest.Digest) digest.Digest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.diffIDs[blob]
}

// checkDocument accepts manifests, indexes and configs of a sane size.
func checkDocument(desc ocispec.Descriptor) error {
	if desc.MediaType == images.MediaTypeDockerSchema1Manifest {
		return fmt.Errorf("its manifest has the old schema 1, push it anew with a current tool: %w", errdefs.ErrInvalidArgument)
	}
	if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) && !images.IsConfigType(desc.MediaType) {
		return fmt.Errorf("%q is no type of a container image: %w", desc.MediaType, errdefs.ErrInvalidArgument)
	}
	if desc.Size < 0 || desc.Size > maxDocument {
		return fmt.Errorf("%s of %d bytes is not between 0 and %d: %w", desc.MediaType, desc.Size, maxDocument, errdefs.ErrInvalidArgument)
	}
	return nil
}

// handlerGroup keeps count of the handlers at work and lets none begin once closed.
type handlerGroup struct {
	mu     sync.RWMutex // read-locked by each handler at work
	closed bool         // +checklocks:mu
}

func (g *handlerGroup) add(h images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if g.closed {
			return nil, context.Canceled
		}
		return h.Handle(ctx, desc)
	})
}

// close waits for the handlers at work and lets no other begin.
func (g *handlerGroup) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"
)

// Image is one image of the store. Its slices and maps are shared: a receiver
// reads them only.
type Image struct {
	ID          string   // "sha256:…", digest of the config
	RepoTags    []string // full names with a tag, sorted; may be empty
	RepoDigests []string // full names with the digest the registry serves, sorted
	Size        uint64   // bytes on disk: layers, manifest, config; never 0
	Config      ocispec.ImageConfig
	Created     time.Time // from the config; zero when it does not say
	Pinned      bool      // the kubelet should not remove it on its own account

	layers layers
}

// layers is the read-only part of a root file system.
type layers struct {
	chain string   // empty for an image without a layer
	lower []string // layer directories below overlayfs/snapshots, topmost first
	size  uint64   // bytes
}

// index answers Get and List from memory. It is never modified once published.
type index struct {
	images []*Image // sorted by ID
	byID   map[string]*Image
	byName map[string]*Image
	names  map[string]digest.Digest // what each name points at
	// targets are the images of those digests, kept to spare the disk on the
	// next rebuild: a digest never changes its meaning.
	targets targets
}

// targets are images by the digest their names point at.
type targets map[digest.Digest]*Image

// Get finds an image by full or short name with tag or digest, by id, or by an
// unambiguous beginning of an id. Errors: errdefs.ErrNotFound, and
// ErrInvalidArgument for what can be neither, or is ambiguous.
func (s *Store) Get(_ context.Context, nameOrID string) (Image, error) {
	img, err := s.current().find(nameOrID)
	if err != nil {
		return Image{}, err
	}
	return *img, nil
}

// List returns the images sorted by id. The filter is empty for all, or what
// Get takes, or a repository for all its tags; no match is no error.
func (s *Store) List(_ context.Context, filter string) ([]Image, error) {
	x := s.current()
	var match func(*Image) bool
	if filter == "" {
		match = func(*Image) bool { return true }
	} else {
		one, err := x.find(filter)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		repo := repositoryOf(filter)
		match = func(img *Image) bool { return img == one || repo != "" && img.inRepository(repo) }
	}
	list := []Image{}
	for _, img := range x.images {
		if match(img) {
			list = append(list, *img)
		}
	}
	return list, nil
}

func (s *Store) current() *index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

func (x *index) find(nameOrID string) (*Image, error) {
	if id, ok := asID(nameOrID); ok {
		if img := x.byID[id]; img != nil {
			return img, nil
		}
		return nil, fmt.Errorf("image %s: %w", nameOrID, errdefs.ErrNotFound)
	}
	named, err := parseName(nameOrID)
	if err == nil {
		if img := x.byName[named.String()]; img != nil {
			return img, nil
		}
	}
	prefix, ok := asIDPrefix(nameOrID)
	if !ok {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("image %s: %w", nameOrID, errdefs.ErrNotFound)
	}
	// images is sorted by ID, so those with the prefix lie together.
	at, _ := slices.BinarySearchFunc(x.images, prefix, func(img *Image, p string) int { return strings.Compare(img.ID, p) })
	match := func(i int) bool { return i < len(x.images) && strings.HasPrefix(x.images[i].ID, prefix) }
	switch {
	case !match(at):
		return nil, fmt.Errorf("image %s: %w", nameOrID, errdefs.ErrNotFound)
	case match(at + 1):
		return nil, fmt.Errorf("image id %s is ambiguous, give more of it: %w", nameOrID, errdefs.ErrInvalidArgument)
	}
	return x.images[at], nil
}

func (x *index) usesChain(chain string) bool {
	return slices.ContainsFunc(x.images, func(img *Image) bool { return img.layers.chain == chain })
}

func (img *Image) inRepository(repo string) bool {
	return slices.ContainsFunc(img.RepoTags, func(n string) bool { return strings.HasPrefix(n, repo+":") }) ||
		slices.ContainsFunc(img.RepoDigests, func(n string) bool { return strings.HasPrefix(n, repo+"@") })
}

// reindex rebuilds the index from the recorded names and publishes it. Images
// that are in the current index, or in fresh, are not read again. Names whose
// image is not complete are left out and returned. Caller holds change.
func (s *Store) reindex(ctx context.Context, fresh targets) (broken []string, _ error) {
	records, err := s.names.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list image names: %w", err)
	}
	known := s.current().targets
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
				img, err = s.load(ctx, r.Target)
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
		img.Pinned = s.pinned.match(img.RepoTags) || s.pinned.match(img.RepoDigests)
	}

	s.mu.Lock()
	s.index = x
	s.mu.Unlock()
	return broken, nil
}

// add records a name of an image; the image itself is copied on first sight,
// for the names differ from one index to the next.
func (x *index) add(name string, img *Image) {
	mine := x.byID[img.ID]
	if mine == nil {
		mine = new(*img)
		mine.RepoTags, mine.RepoDigests = nil, nil
		x.byID[img.ID] = mine
		x.images = append(x.images, mine)
	}
	x.byName[name] = mine
	if strings.Contains(name, "@") {
		mine.RepoDigests = append(mine.RepoDigests, name)
	} else {
		mine.RepoTags = append(mine.RepoTags, name)
	}
}

func (x *index) sort() {
	slices.SortFunc(x.images, func(a, b *Image) int { return strings.Compare(a.ID, b.ID) })
	for _, img := range x.images {
		slices.Sort(img.RepoTags)
		slices.Sort(img.RepoDigests)
	}
}

// load reads what a name points at: an index or a manifest, its config, and the
// view of its layers, which it creates when there is none.
func (s *Store) load(ctx context.Context, target ocispec.Descriptor) (*Image, error) {
	manifest, err := images.Manifest(ctx, s.content, target, platforms.Default())
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", target.Digest, err)
	}
	blob, err := content.ReadBlob(ctx, s.content, manifest.Config)
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
	if img.layers, err = s.openLayers(ctx, config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	img.Size = img.layers.size + uint64(target.Size) + uint64(manifest.Config.Size)
	return img, nil
}

// openLayers makes sure that the chain of these layers is held, and finds its
// directories and size.
func (s *Store) openLayers(ctx context.Context, diffIDs []digest.Digest) (layers, error) {
	if len(diffIDs) == 0 {
		return layers{}, nil
	}
	chains := identity.ChainIDs(slices.Clone(diffIDs))
	l := layers{chain: chains[len(chains)-1].String()}
	var err error
	if l.lower, err = s.ensureView(ctx, l.chain); err != nil {
		return layers{}, err
	}
	for _, chain := range chains {
		u, err := s.snapshots.Usage(ctx, chain.String())
		if err != nil {
			return layers{}, fmt.Errorf("measure layer %s: %w", chain, err)
		}
		l.size += uint64(u.Size)
	}
	return l, nil
}

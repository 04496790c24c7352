package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	img, err := s.catalog.known.current().find(nameOrID)
	if err != nil {
		return Image{}, err
	}
	return *img, nil
}

// List returns the images sorted by id. The filter is empty for all, or what
// Get takes, or a repository for all its tags; no match is no error.
func (s *Store) List(_ context.Context, filter string) ([]Image, error) {
	return s.catalog.known.current().list(filter)
}

func (x *index) list(filter string) ([]Image, error) {
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

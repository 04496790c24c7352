package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const idPrefix = "sha256:"

// parseName completes a name to its full form: registry, repository, and tag
// ("latest" when none is given) or digest. Of a tag beside a digest only the
// digest counts.
func parseName(name string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, fmt.Errorf("image name %q is not valid (%v); use [registry/]repository[:tag|@digest]: %w",
			name, err, errdefs.ErrInvalidArgument)
	}
	return named, nil
}

// recordedNames are the names that a pulled image gets: with the digest always,
// with the tag when that is how it was asked for.
func recordedNames(named reference.Named, dgst digest.Digest) []string {
	names := []string{named.Name() + "@" + dgst.String()}
	if tagged, ok := named.(reference.Tagged); ok {
		names = append(names, named.Name()+":"+tagged.Tag())
	}
	return names
}

// NameFor is how an image is called for people who asked for it by the first of these
// names that is one, in its full form, whatever else has that name by now. With ids
// alone it is a name of the image, and without any its id.
func (img Image) NameFor(asked ...string) string {
	for _, name := range asked {
		if _, ok := asID(name); ok || name == "" {
			continue
		}
		named, err := parseName(name)
		if err != nil {
			continue
		}
		if full := named.String(); !img.beginsWith(name) || slices.Contains(img.RepoTags, full) || slices.Contains(img.RepoDigests, full) {
			return full
		}
	}
	for _, names := range [][]string{img.RepoTags, img.RepoDigests} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return img.ID
}

// beginsWith tells whether the image may have been asked for by a part of its id.
func (img Image) beginsWith(name string) bool {
	prefix, ok := asIDPrefix(name)
	return ok && strings.HasPrefix(img.ID, prefix)
}

// repositoryOf is the full repository when name has neither tag nor digest.
func repositoryOf(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || !reference.IsNameOnly(named) {
		return ""
	}
	return named.Name()
}

// asID recognises a whole image id, with or without its algorithm.
func asID(s string) (string, bool) {
	hex := strings.TrimPrefix(s, idPrefix)
	if len(hex) == 64 && isHex(hex) {
		return idPrefix + hex, true
	}
	return "", false
}

// asIDPrefix recognises the beginning of an image id.
func asIDPrefix(s string) (string, bool) {
	hex := strings.TrimPrefix(s, idPrefix)
	if hex != "" && len(hex) < 64 && isHex(hex) {
		return idPrefix + hex, true
	}
	return "", false
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

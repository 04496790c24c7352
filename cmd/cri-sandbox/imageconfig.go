package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cri-sandbox/cri-sandbox/image"
)

type imagesConfig struct {
	PinnedImages    []string `toml:"pinned_images" comment:"Images that the kubelet shall not remove to make space: names, or the beginning of names with '*' at the end, or a part with '*' at both ends"`
	MaxUnpackedSize byteSize `toml:"max_unpacked_size" comment:"What the layers of one pull may amount to; an image with more is refused"`
	MaxFiles        int64    `toml:"max_files" comment:"How many files those layers may have"`
	MaxLayers       int      `toml:"max_layers" comment:"How many layers an image may have, at most 128"`
}

func defaultImagesConfig() imagesConfig {
	return imagesConfig{PinnedImages: []string{}, MaxUnpackedSize: 100 << 30, MaxFiles: 2_000_000, MaxLayers: image.MaxLayers}
}

func (c imagesConfig) validate() error {
	if _, err := image.ParsePinned(c.PinnedImages); err != nil {
		return fmt.Errorf("config: images.pinned_images: %w", err)
	}
	if c.MaxFiles < 1 {
		return fmt.Errorf("config: images.max_files is %d, at least 1 is needed", c.MaxFiles)
	}
	if c.MaxLayers < 1 || c.MaxLayers > image.MaxLayers {
		return fmt.Errorf("config: images.max_layers is %d, not between 1 and %d", c.MaxLayers, image.MaxLayers)
	}
	return nil
}

func (c imagesConfig) limits() image.Limits {
	return image.Limits{UnpackedBytes: int64(c.MaxUnpackedSize), Files: c.MaxFiles, Layers: c.MaxLayers}
}

// byteSize is a number of bytes that reads and writes as "512MiB". It is never 0.
type byteSize int64

// Largest first, for writing.
var byteUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *byteSize) UnmarshalText(text []byte) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 1 || n > math.MaxInt64/u.bytes {
			break
		}
		*s = byteSize(n * u.bytes)
		return nil
	}
	return fmt.Errorf("size %q is not a positive number with KiB, MiB, GiB, TiB or without a unit", text)
}

// MarshalText implements encoding.TextMarshaler.
func (s byteSize) MarshalText() ([]byte, error) {
	for _, u := range byteUnits {
		if int64(s)%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/u.bytes, u.name), nil
		}
	}
	return nil, fmt.Errorf("size %d has no unit", int64(s))
}

package testimages

import (
	"bytes"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// newLayer makes a gzip-compressed layer of a tar archive in memory.
func newLayer(archive []byte) v1.Layer {
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive)), nil
	}, tarball.WithCompressedCaching)
	if err != nil {
		panic(err) // memory can be read
	}
	return l
}

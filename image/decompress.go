package image

import (
	"bufio"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow is how far back a zstd layer may refer, which the decoder keeps
// in memory: what the zstd program takes by default. A layer could ask for half
// a GiB.
const maxZstdWindow = 128 << 20

// decompress finds out by its first bytes how a layer is compressed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReaderSize(r, 32<<10)
	// An error shows again when the decoder reads.
	head, _ := buf.Peek(10)
	if compression.DetectCompression(head) != compression.Zstd {
		return compression.DecompressStream(buf)
	}
	dec, err := zstd.NewReader(buf, zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, err
	}
	return dec.IOReadCloser(), nil
}

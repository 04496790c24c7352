package image

import (
	"archive/tar"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits bound what one pull may bring onto the node. An image that exceeds one
// is refused with errdefs.ErrInvalidArgument, and nothing of it stays. Zero
// means the default.
type Limits struct {
	// UnpackedBytes bounds the layers that a pull unpacks, all together: what
	// they say their files hold, and what comes out of the decompression.
	// 100 GiB by default.
	UnpackedBytes int64

	// Files bounds the entries of those layers; 2,000,000 by default.
	Files int64

	// Layers bounds the layers of an image, those included that are here
	// already; 128 by default, which is also the most that one mount takes.
	Layers int
}

// MaxLayers is the highest value of Limits.Layers.
const MaxLayers = 128

const (
	defaultUnpackedBytes = 100 << 30
	defaultFiles         = 2_000_000

	// maxEntryAttributes bounds the extended attributes of one entry, in bytes.
	// ext4 takes 4 KiB, XFS 64 KiB.
	maxEntryAttributes = 64 << 10

	// maxHeaderBytes bounds the names and attributes of one layer, which the
	// library that unpacks it keeps in memory to the end.
	maxHeaderBytes = 256 << 20

	// maxDocuments bounds the indexes, manifests and configs of one pull. Three
	// are usual; indexes may be nested, to any depth.
	maxDocuments = 16
)

func (l *Limits) complete() {
	if l.UnpackedBytes <= 0 {
		l.UnpackedBytes = defaultUnpackedBytes
	}
	if l.Files <= 0 {
		l.Files = defaultFiles
	}
	if l.Layers <= 0 || l.Layers > MaxLayers {
		l.Layers = MaxLayers
	}
}

// budget is what is left to one pull of its limits.
type budget struct {
	limits    Limits
	documents atomic.Int64
	files     atomic.Int64
	stated    atomic.Int64 // bytes that the entries say they hold
	unpacked  atomic.Int64 // bytes that came out of the decompression
}

func newBudget(l Limits) *budget { return &budget{limits: l} }

// document counts an index, a manifest or a config that is about to be fetched.
func (b *budget) document() error {
	if b.documents.Add(1) > maxDocuments {
		return fmt.Errorf("it has more than %d indexes, manifests and configs: %w", maxDocuments, errdefs.ErrInvalidArgument)
	}
	return nil
}

// manifest looks at the layers before any of them is fetched.
func (b *budget) manifest(layers []ocispec.Descriptor) error {
	if len(layers) > b.limits.Layers {
		return fmt.Errorf("it has %d layers, more than %d: %w", len(layers), b.limits.Layers, errdefs.ErrInvalidArgument)
	}
	var sum int64
	for _, l := range layers {
		if l.Size < 0 || l.Size > b.limits.UnpackedBytes {
			return fmt.Errorf("layer %s of %d bytes is larger than %d: %w", l.Digest, l.Size, b.limits.UnpackedBytes, errdefs.ErrInvalidArgument)
		}
		if l.Size > b.limits.UnpackedBytes-sum {
			return fmt.Errorf("its layers are larger than %d bytes: %w", b.limits.UnpackedBytes, errdefs.ErrInvalidArgument)
		}
		sum += l.Size
	}
	return nil
}

// entry counts one entry of a layer. A sparse file counts in full: its holes are
// written as zeros.
func (b *budget) entry(h *tar.Header) error {
	if n := b.files.Add(1); n > b.limits.Files {
		return fmt.Errorf("the image has more than %d files", b.limits.Files)
	}
	if !within(&b.stated, h.Size, b.limits.UnpackedBytes) {
		return b.tooLarge()
	}
	return nil
}

// within adds n to a sum unless that would exceed the limit, which may be the highest
// number there is.
func within(sum *atomic.Int64, n, limit int64) bool {
	for {
		old := sum.Load()
		if n < 0 || n > limit-old {
			return false
		}
		if sum.CompareAndSwap(old, old+n) {
			return true
		}
	}
}

func (b *budget) tooLarge() error {
	return fmt.Errorf("the image unpacks to more than %d bytes", b.limits.UnpackedBytes)
}

// reader counts what is read of a decompressed layer and fails at the limit.
func (b *budget) reader(r io.Reader) *countingReader { return &countingReader{r: r, budget: b} }

type countingReader struct {
	r      io.Reader
	budget *budget
	n      int64
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if !within(&c.budget.unpacked, int64(n), c.budget.limits.UnpackedBytes) {
		return n, c.budget.tooLarge()
	}
	return n, err
}

// entries looks at the entries of one layer, in their order.
type entries struct {
	budget  *budget
	root    string // the directory that the layer is unpacked to
	headers int64  // bytes of names and attributes so far
	links   bool   // an entry may lie elsewhere than its name says
	last    detour
	fifos   []string // see noteFIFO
}

// check refuses an entry that is out of bounds, or that names something outside
// of its layer, and takes from it what has no place in a layer. Device nodes
// pass: images of whole systems have them, and no mount of ours honours them.
// Symbolic links may point anywhere; they are resolved inside of the layer when
// an entry goes through one.
func (e *entries) check(h *tar.Header) (bool, error) {
	if err := e.budget.entry(h); err != nil {
		return false, err
	}
	if !staysInside(h.Name) {
		return false, fmt.Errorf("entry %s lies outside of the layer", shortName(h.Name))
	}
	if h.Typeflag == tar.TypeLink && !staysInside(h.Linkname) {
		return false, fmt.Errorf("entry %s links to %s outside of the layer", shortName(h.Name), shortName(h.Linkname))
	}
	attributes := trimRecords(h)
	if attributes > maxEntryAttributes {
		return false, fmt.Errorf("entry %s has %d bytes of extended attributes, more than %d", shortName(h.Name), attributes, maxEntryAttributes)
	}
	h.Uname, h.Gname = "", "" // of up to a megabyte, and nobody reads them
	e.headers += int64(len(h.Name) + len(h.Linkname) + attributes + e.detour(h))
	if e.headers > maxHeaderBytes {
		return false, fmt.Errorf("names and attributes of the layer take more than %d bytes", maxHeaderBytes)
	}
	e.noteFIFO(h)
	return true, nil
}

// xattrRecord begins the records of a tar header that are extended attributes.
const xattrRecord = "SCHILY.xattr."

// trimRecords drops the records of a header that nobody reads, and returns the
// bytes of what is left. Attributes by which a layer would speak to the overlay
// file system are among it; the library does not set those.
func trimRecords(h *tar.Header) int {
	n := 0
	for key, value := range h.PAXRecords {
		if !strings.HasPrefix(key, xattrRecord) {
			delete(h.PAXRecords, key)
			continue
		}
		n += len(key) + len(value)
	}
	return n
}

// shortName quotes a name out of a layer, which may be of any length.
func shortName(name string) string {
	const most = 100
	if len(name) > most {
		return fmt.Sprintf("%q…", name[:most])
	}
	return fmt.Sprintf("%q", name)
}

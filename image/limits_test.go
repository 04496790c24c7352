package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sparseFile is a tar archive of one file of a size, all of it a hole. The
// library writes no sparse files, so the records get their names afterwards.
func sparseFile(size int64) *rawLayer {
	l := plainLayer(entry(tar.Header{Name: "hole", Mode: 0o644, PAXRecords: map[string]string{
		"GNX.sparse.major": "1", "GNX.sparse.minor": "0", "GNX.sparse.name": "hole", "GNX.sparse.realsize": fmt.Sprint(size),
	}}, "0\n"+strings.Repeat("\x00", 510)))
	return changed(l, func(blob []byte) { copy(blob, bytes.ReplaceAll(blob, []byte("GNX."), []byte("GNU."))) })
}

// changed is a plain layer after a change of its bytes.
func changed(l *rawLayer, change func([]byte)) *rawLayer {
	blob := bytes.Clone(l.blob)
	change(blob)
	h, _, _ := v1.SHA256(bytes.NewReader(blob))
	return &rawLayer{blob: blob, diffID: h, mediaType: l.mediaType}
}

// compressed turns a plain layer into one that is compressed by f.
func compressed(l *rawLayer, mediaType types.MediaType, f func([]byte) []byte) *rawLayer {
	return &rawLayer{blob: f(l.blob), diffID: l.diffID, mediaType: mediaType}
}

// wideZstd compresses with a window of half a GiB.
func wideZstd(blob []byte) []byte {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(zstd.MaxWindowSize), zstd.WithSingleSegment(false), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(blob)
	_ = w.Flush()
	_ = w.Close()
	return buf.Bytes()
}

// Sums stay below a limit that leaves no room for one more item above it.
func TestLimitsWithoutOverflow(t *testing.T) {
	const most = math.MaxInt64
	layer := ocispec.Descriptor{Size: most - 1}
	b := newBudget(Limits{UnpackedBytes: most, Files: most, Layers: MaxLayers})
	if err := b.manifest([]ocispec.Descriptor{layer, {Size: 1}}); err != nil {
		t.Errorf("layers at the limit: %v", err)
	}
	for _, more := range [][]ocispec.Descriptor{{layer, layer}, {layer, layer, layer, layer}, {layer, {Size: 2}}, {{Size: -1}}} {
		if err := b.manifest(more); !errdefs.IsInvalidArgument(err) {
			t.Errorf("layers %v: %v", more, err)
		}
	}
	if err := b.entry(&tar.Header{Size: most - 1}); err != nil {
		t.Errorf("entry at the limit: %v", err)
	}
	for range 3 {
		if err := b.entry(&tar.Header{Size: most - 1}); err == nil {
			t.Error("an entry above the limit is let in")
		}
	}
	b.unpacked.Store(most - 1)
	if _, err := b.reader(strings.NewReader("xy")).Read(make([]byte, 2)); err == nil {
		t.Error("bytes above the limit are let in")
	}
	if err := checkDocument(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Size: -1}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("config of a negative size: %v", err)
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	var many []func(*tar.Writer)
	for i := range 40 {
		many = append(many, file(fmt.Sprintf("f%d", i), ""))
	}
	zeros := func(n int) func(*tar.Writer) {
		return entryBytes(tar.Header{Name: "zeros", Mode: 0o644}, make([]byte, n))
	}
	attribute := map[string]string{"SCHILY.xattr.user.a": strings.Repeat("a", 70<<10)}
	limits := Limits{UnpackedBytes: 1 << 20, Files: 30, Layers: 4}
	for name, c := range map[string]struct {
		layers []*rawLayer
		want   string // in the error; empty for none
	}{
		"all at the limit": {[]*rawLayer{gzipLayer(zeros(800 << 10)), gzipLayer(many[:29]...)}, ""},
		"gzip bomb":        {[]*rawLayer{gzipLayer(zeros(1 << 21))}, "more than 1048576 bytes"},
		"zstd bomb":        {[]*rawLayer{zstdLayer(zeros(1 << 21))}, "more than 1048576 bytes"},
		"two layers":       {[]*rawLayer{gzipLayer(zeros(800 << 10)), gzipLayer(file("x", ""), zeros(400<<10))}, "more than 1048576 bytes"},
		// Not in a file, but before or behind: the digest covers it.
		"behind the end": {[]*rawLayer{compressed(padded(plainLayer(file("x", "x")), 2<<20), types.OCILayer, gzipped)}, "more than 1048576 bytes"},
		"sparse file":    {[]*rawLayer{sparseFile(1 << 50)}, "more than 1048576 bytes"},
		"sparse files":   {[]*rawLayer{sparseFile(800 << 10), sparseFile(801 << 10)}, "more than 1048576 bytes"},
		"files":          {[]*rawLayer{gzipLayer(many[:20]...), gzipLayer(many[20:]...)}, "more than 30 files"},
		"layers":         {[]*rawLayer{gzipLayer(file("1", "")), gzipLayer(file("2", "")), gzipLayer(file("3", "")), gzipLayer(file("4", "")), gzipLayer(file("5", ""))}, "5 layers, more than 4"},
		"attributes":     {[]*rawLayer{gzipLayer(entry(tar.Header{Name: "x", Mode: 0o644, PAXRecords: attribute}, ""))}, "extended attributes"},
		"window":         {[]*rawLayer{compressed(plainLayer(zeros(400<<10)), types.OCILayerZStd, wideZstd)}, "window size exceeded"},
		"layer as such":  {[]*rawLayer{plainLayer(zeros(2 << 20))}, "is larger than 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			host := newRegistry(t, nil)
			s := newStore(t, Options{Limits: limits})
			push(t, host+"/app", buildImage(t, v1.Config{}, c.layers...))
			_, err := s.Pull(t.Context(), host+"/app", nil)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("pull: %v", err)
			}
			wantNothingLeft(t, s)
		})
	}
}

func gzipped(blob []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(blob)
	_ = w.Close()
	return buf.Bytes()
}

// padded appends zeros behind the end of an archive.
func padded(l *rawLayer, n int) *rawLayer {
	blob := append(bytes.Clone(l.blob), make([]byte, n)...)
	h, _, _ := v1.SHA256(bytes.NewReader(blob))
	return &rawLayer{blob: blob, diffID: h, mediaType: l.mediaType}
}

// Indexes may refer to indexes without an end.
func TestPullEndsAtNestedIndexes(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	nest := func(ref string, depth int) {
		var inner mutate.Appendable = buildImage(t, v1.Config{}, gzipLayer(file("x", "x")))
		var idx v1.ImageIndex
		for range depth {
			idx = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: inner})
			inner = idx
		}
		r, err := name.ParseReference(ref, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(r, idx); err != nil {
			t.Fatal(err)
		}
	}
	nest(host+"/deep", 3)
	mustPull(t, s, host+"/deep")
	if err := s.Remove(t.Context(), host+"/deep"); err != nil {
		t.Fatal(err)
	}
	nest(host+"/deeper", maxDocuments)
	_, err := s.Pull(t.Context(), host+"/deeper", nil)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "indexes") {
		t.Errorf("pull: %v", err)
	}
	wantNothingLeft(t, s)
}

// No more layers are on the wire than the limit says, over all pulls together.
func TestPullLimitsParallelDownloads(t *testing.T) {
	const limit = 2
	var now, most atomic.Int64
	configs := map[string]bool{} // not layers
	host := newRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && !configs[path.Base(r.URL.Path)] {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(20 * time.Millisecond) // so that others come meanwhile
			}
			h.ServeHTTP(w, r)
		})
	})
	s := newStore(t, Options{MaxConcurrentDownloads: limit})
	for i := range 3 {
		var layers []*rawLayer
		for j := range 3 {
			layers = append(layers, gzipLayer(file(fmt.Sprintf("%d-%d", i, j), "x")))
		}
		img := buildImage(t, v1.Config{}, layers...)
		config, _ := img.ConfigName()
		configs[config.String()] = true
		push(t, fmt.Sprintf("%s/app%d", host, i), img)
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { mustPull(t, s, fmt.Sprintf("%s/app%d", host, i)) })
	}
	wg.Wait()
	if n := most.Load(); n > limit {
		t.Errorf("%d downloads at once", n)
	}
}

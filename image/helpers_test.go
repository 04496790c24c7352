package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// newStore opens a store in a new directory and closes it after the test, when it
// also takes away what the test left mounted.
func newStore(t testing.TB, opts Options) *Store {
	t.Helper()
	needRoot(t)
	if opts.Root == "" {
		opts.Root = filepath.Join(t.TempDir(), "images")
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// mounted mounts a root file system of an image and unmounts it after the test.
func mounted(t testing.TB, s *Store, key string, img Image) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), key)
	if err := s.MountRootfs(key, img, target, idmap.Mapping{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmount(target) })
	return target
}

func mustPull(t testing.TB, s *Store, ref string) Image {
	t.Helper()
	img, err := s.Pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// newRegistry serves an empty registry on loopback and returns its host:port.
// Requests of the tests' own pushes pass through wrap, too.
func newRegistry(t testing.TB, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// rawLayer is a layer of given bytes; unlike the library's it may lie.
type rawLayer struct {
	blob      []byte
	diffID    v1.Hash
	mediaType types.MediaType
}

func (l *rawLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.blob))
	return h, err
}
func (l *rawLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
func (l *rawLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.blob)), nil
}
func (l *rawLayer) Uncompressed() (io.ReadCloser, error)   { panic("not needed") }
func (l *rawLayer) Size() (int64, error)                   { return int64(len(l.blob)), nil }
func (l *rawLayer) MediaType() (types.MediaType, error)    { return l.mediaType, nil }
func entry(h tar.Header, content string) func(*tar.Writer) { return entryBytes(h, []byte(content)) }

func entryBytes(h tar.Header, content []byte) func(*tar.Writer) {
	return func(w *tar.Writer) {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size = int64(len(content))
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := w.Write(content); err != nil {
			panic(err)
		}
	}
}

func file(name, content string) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Mode: 0o644}, content)
}

func dirEntry(name string, mode int64) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeDir}, "")
}

func tarball(entries ...func(*tar.Writer)) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e(w)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func plainLayer(entries ...func(*tar.Writer)) *rawLayer {
	blob := tarball(entries...)
	h, _, _ := v1.SHA256(bytes.NewReader(blob))
	return &rawLayer{blob: blob, diffID: h, mediaType: types.OCIUncompressedLayer}
}

func gzipLayer(entries ...func(*tar.Writer)) *rawLayer {
	l := plainLayer(entries...)
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(l.blob)
	_ = w.Close()
	l.blob, l.mediaType = buf.Bytes(), types.OCILayer
	return l
}

func zstdLayer(entries ...func(*tar.Writer)) *rawLayer {
	l := plainLayer(entries...)
	w, _ := zstd.NewWriter(nil)
	l.blob, l.mediaType = w.EncodeAll(l.blob, nil), types.OCILayerZStd
	return l
}

func buildImage(t testing.TB, config v1.Config, layers ...*rawLayer) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, l := range layers {
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: l.mediaType}); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config = "linux", "amd64", config
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

func push(t testing.TB, ref string, img v1.Image, opts ...remote.Option) {
	t.Helper()
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img, opts...); err != nil {
		t.Fatal(err)
	}
}

// pushSmall pushes an image of one small layer that holds the given text.
func pushSmall(t testing.TB, ref, text string, opts ...remote.Option) v1.Image {
	t.Helper()
	img := buildImage(t, v1.Config{Env: []string{"TEXT=" + text}}, gzipLayer(file("text", text)))
	push(t, ref, img, opts...)
	return img
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	blob, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(blob)
}

func lstat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

// leftovers lists what a store with no image and no container should not have:
// blobs, unfinished downloads, layers, leases.
func leftovers(t testing.TB, s *Store) []string {
	t.Helper()
	ctx := scoped(context.WithoutCancel(t.Context()))
	if err := s.collector.sweep(ctx); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range []string{"content/ingest", "content/blobs/sha256", "overlayfs/snapshots", "rootfs", "trash"} {
		entries, err := os.ReadDir(filepath.Join(s.opts.Root, dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	list, err := s.backend.leases.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		found = append(found, "lease "+l.ID)
	}
	return found
}

func wantNothingLeft(t testing.TB, s *Store) {
	t.Helper()
	if found := leftovers(t, s); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

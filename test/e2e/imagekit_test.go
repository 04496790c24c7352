package e2e

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// imageKit is a kit for tests of images: what the node has, and what is pushed to its
// registry.
type imageKit struct{ kit }

// images is the client of the image service.
func (k kit) images() runtimeapi.ImageServiceClient { return k.env.Client.Image }

// pull pulls an image that must be there, and returns its id.
func (k imageKit) pull(ref string) string {
	k.Helper()
	resp, err := k.images().PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	return resp.ImageRef
}

// image looks an image up; nil when it is not there.
func (k imageKit) image(name string) *runtimeapi.Image {
	k.Helper()
	resp, err := k.images().ImageStatus(k.ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	k.must(err)
	return resp.Image
}

func (k imageKit) removeImage(name string) {
	k.Helper()
	_, err := k.images().RemoveImage(k.ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	k.must(err)
}

// tarEntry is one entry of a layer.
type tarEntry struct {
	tar.Header
	content []byte
}

// plainLayer packs entries into an uncompressed layer.
func (k imageKit) plainLayer(entries ...tarEntry) v1.Layer {
	k.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size, e.Format = int64(len(e.content)), tar.FormatPAX
		k.must(w.WriteHeader(&e.Header))
		_, err := w.Write(e.content)
		k.must(err)
	}
	k.must(w.Close())
	return static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer)
}

// pushOnBusybox pushes the busybox image with more layers, and returns its name
// in the node's registry.
func (k imageKit) pushOnBusybox(name string, layers ...v1.Layer) string {
	k.Helper()
	img, err := testimages.Busybox()
	k.must(err)
	for _, l := range layers {
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCIUncompressedLayer})
		k.must(err)
	}
	ref := k.env.Registry + "/test/" + name
	k.must(testimages.PushImage(k.ctx, ref, img))
	return ref
}

// testProgram builds one of the programs in testdata.
func (k imageKit) testProgram(name string) []byte {
	k.Helper()
	path := filepath.Join(k.TempDir(), name)
	build := exec.CommandContext(k.ctx, "go", "build", "-o", path, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		k.Fatalf("%v: %s", err, out)
	}
	binary, err := os.ReadFile(path)
	k.must(err)
	return binary
}

// registryBehind serves the node's registry on another loopback address, through
// a handler that may do what it likes. It returns host:port.
func (k imageKit) registryBehind(wrap func(registry http.Handler) http.Handler) string {
	k.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: k.env.Registry})
	server := httptest.NewServer(wrap(proxy))
	k.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

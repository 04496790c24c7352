package testimages

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestPushIsCompleteAndReproducible(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	var first map[string]v1.Hash
	for range 2 {
		refs, err := Push(t.Context(), strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		digests := map[string]v1.Hash{}
		for _, want := range []string{"busybox", "web", "nonroot"} {
			r, err := name.ParseReference(refs[want], name.Insecure)
			if err != nil {
				t.Fatalf("reference of %s: %v", want, err)
			}
			img, err := remote.Image(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(img); err != nil {
				t.Errorf("image %s: %v", want, err)
			}
			digests[want], _ = img.Digest()
		}
		if first == nil {
			first = digests
		}
		for name := range first {
			if first[name] != digests[name] {
				t.Errorf("image %s is another each time", name)
			}
		}
	}
}

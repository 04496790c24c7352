package image

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestPullGetListRemove(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	img := buildImage(t, v1.Config{User: "app", Env: []string{"A=b"}}, gzipLayer(file("one", "1")), gzipLayer(file("two", "2")))
	push(t, host+"/team/app:v1", img)
	id, _ := img.ConfigName()
	dgst, _ := img.Digest()

	got := mustPull(t, s, host+"/team/app:v1")
	if got.ID != id.String() || got.Config.User != "app" || got.Size == 0 {
		t.Errorf("pulled %+v", got)
	}
	if len(got.RepoTags) != 1 || got.RepoTags[0] != host+"/team/app:v1" {
		t.Errorf("tags %v", got.RepoTags)
	}
	if len(got.RepoDigests) != 1 || got.RepoDigests[0] != host+"/team/app@"+dgst.String() {
		t.Errorf("digests %v", got.RepoDigests)
	}
	for _, name := range []string{
		host + "/team/app:v1", host + "/team/app@" + dgst.String(), host + "/team/app:v9@" + dgst.String(),
		id.String(), id.Hex, id.Hex[:12], "sha256:" + id.Hex[:6],
	} {
		if found, err := s.Get(t.Context(), name); err != nil || found.ID != got.ID {
			t.Errorf("get %s: %v %v", name, found.ID, err)
		}
	}
	root := mounted(t, s, "c1", got)
	if readFile(t, root+"/one")+readFile(t, root+"/two") != "12" {
		t.Error("wrong content")
	}
	if err := s.UnmountRootfs(t.Context(), "c1", root); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), strings.TrimPrefix(id.String(), "sha256:")[:10]); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), host+"/team/app:v1"); err != nil {
		t.Errorf("second removal: %v", err)
	}
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("list %v %v", list, err)
	}
	wantNothingLeft(t, s)
}

func TestPullTagMoves(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "old")
	old := mustPull(t, s, host+"/app:v1")
	pushSmall(t, host+"/app:v1", "new")
	now := mustPull(t, s, host+"/app:v1")

	if got, err := s.Get(t.Context(), host+"/app:v1"); err != nil || got.ID != now.ID || now.ID == old.ID {
		t.Errorf("tag names %s, %v", got.ID, err)
	}
	kept, err := s.Get(t.Context(), old.ID)
	if err != nil || len(kept.RepoTags) != 0 || len(kept.RepoDigests) != 1 {
		t.Errorf("old image: %+v %v", kept, err)
	}
	root := mounted(t, s, "c", kept)
	if got := readFile(t, root+"/text"); got != "old" {
		t.Errorf("old image holds %q", got)
	}
}

func TestPullByDigest(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	dgst, _ := pushSmall(t, host+"/app:v1", "x").Digest()
	img := mustPull(t, s, host+"/app@"+dgst.String())
	if len(img.RepoTags) != 0 || len(img.RepoDigests) != 1 {
		t.Errorf("names %v %v", img.RepoTags, img.RepoDigests)
	}
	wrong := host + "/app@sha256:" + strings.Repeat("a", 64)
	if _, err := s.Pull(t.Context(), wrong, nil); !errdefs.IsNotFound(err) {
		t.Errorf("unknown digest: %v", err)
	}
}

// A pull of what is there asks the registry for the digest and nothing more, and
// a second name costs no download.
func TestPullAgainIsCheap(t *testing.T) {
	var asked requests
	host := newRegistry(t, asked.wrap)
	s := newStore(t, Options{})
	img := pushSmall(t, host+"/app:v1", "x")
	push(t, host+"/other:v2", img)
	first := mustPull(t, s, host+"/app:v1")
	asked.reset()
	mustPull(t, s, host+"/app:v1")
	second := mustPull(t, s, host+"/other:v2")
	if n := asked.count("GET", "/"); n != 0 || asked.count("HEAD", "/manifests/") != 2 {
		t.Errorf("%d downloads, %d questions", n, asked.count("HEAD", ""))
	}
	if second.ID != first.ID || len(second.RepoTags) != 2 || len(second.RepoDigests) != 2 {
		t.Errorf("names %v %v", second.RepoTags, second.RepoDigests)
	}
	// One name removes them all.
	if err := s.Remove(t.Context(), host+"/app:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), host+"/other:v2"); !errdefs.IsNotFound(err) {
		t.Errorf("the other name: %v", err)
	}
	wantNothingLeft(t, s)
}

func TestPullPicksPlatform(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	mine := buildImage(t, v1.Config{}, gzipLayer(file("arch", "mine")))
	foreign := func(arch string) v1.Image {
		img := buildImage(t, v1.Config{}, gzipLayer(file("arch", arch)))
		cf, _ := img.ConfigFile()
		cf = cf.DeepCopy()
		cf.Architecture = arch
		img, err := mutate.ConfigFile(img, cf)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	pushIndex := func(ref string, images map[string]v1.Image) v1.Hash {
		idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for arch, img := range images {
			idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
				Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
			})
		}
		r, _ := name.ParseReference(ref, name.Insecure)
		if err := remote.WriteIndex(r, idx); err != nil {
			t.Fatal(err)
		}
		h, _ := idx.Digest()
		return h
	}
	dgst := pushIndex(host+"/multi", map[string]v1.Image{"s390x": foreign("s390x"), "amd64": mine})
	img := mustPull(t, s, host+"/multi")
	if got := readFile(t, mounted(t, s, "c", img)+"/arch"); got != "mine" {
		t.Errorf("got the image for %q", got)
	}
	if img.RepoDigests[0] != host+"/multi@"+dgst.String() {
		t.Errorf("digest %v is not the index's %v", img.RepoDigests, dgst)
	}
	pushIndex(host+"/foreign", map[string]v1.Image{"s390x": foreign("s390x")})
	push(t, host+"/single", foreign("s390x"))
	for _, ref := range []string{host + "/foreign", host + "/single"} {
		if _, err := s.Pull(t.Context(), ref, nil); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "platform") {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestPullRejectsArtifacts(t *testing.T) {
	var asked requests
	host := newRegistry(t, asked.wrap)
	s := newStore(t, Options{})
	chart := mutate.ConfigMediaType(buildImage(t, v1.Config{}, gzipLayer(file("x", "x"))), "application/vnd.cncf.helm.config.v1+json")
	push(t, host+"/chart", chart)
	push(t, host+"/signature", mutate.ConfigMediaType(chart, "application/vnd.oci.empty.v1+json"))
	odd := plainLayer(file("x", "x"))
	odd.mediaType = "application/vnd.example.blob"
	push(t, host+"/odd", buildImage(t, v1.Config{}, odd))
	asked.reset()
	for _, name := range []string{"chart", "signature", "odd"} {
		_, err := s.Pull(t.Context(), host+"/"+name, nil)
		if !errdefs.IsInvalidArgument(err) || name != "odd" && !strings.Contains(err.Error(), "artifact") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := asked.count("GET", "/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched of what is no image", n)
	}
	wantNothingLeft(t, s)
}

// An image may say where else a blob can be had; the node does not go there.
func TestPullIgnoresForeignURLs(t *testing.T) {
	var asked requests
	bait := httptest.NewServer(asked.wrap(http.NotFoundHandler()))
	defer bait.Close()
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	img := buildImage(t, v1.Config{})
	l := gzipLayer(file("x", "x"))
	img, err := mutate.Append(img, mutate.Addendum{Layer: l, MediaType: l.mediaType, URLs: []string{bait.URL + "/layer"}})
	if err != nil {
		t.Fatal(err)
	}
	push(t, host+"/app", img)
	m, _ := img.Manifest()
	if len(m.Layers[0].URLs) != 1 {
		t.Fatal("the test image names no URL")
	}
	mustPull(t, s, host+"/app")
	if n := asked.count("GET", ""); n != 0 {
		t.Errorf("%d requests to a URL out of the image", n)
	}
}

func TestListFilter(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	for _, ref := range []string{"/app:v1", "/app:v2", "/apple:v1"} {
		pushSmall(t, host+ref, ref)
		mustPull(t, s, host+ref)
	}
	for filter, want := range map[string]int{
		"": 3, host + "/app": 2, host + "/app:v1": 1, host + "/app:v3": 0, host + "/none": 0, "sha256:" + strings.Repeat("a", 64): 0,
	} {
		if list, err := s.List(t.Context(), filter); err != nil || len(list) != want {
			t.Errorf("filter %q: %d images, %v", filter, len(list), err)
		}
	}
	if _, err := s.List(t.Context(), "NOT VALID"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad filter: %v", err)
	}
	if _, err := s.Get(t.Context(), "NOT VALID"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
}

func TestGetRefusesAnAmbiguousID(t *testing.T) {
	x := &index{images: []*Image{{ID: "sha256:aa1"}, {ID: "sha256:ab1"}, {ID: "sha256:ab2"}, {ID: "sha256:b"}}}
	for prefix, want := range map[string]string{"aa": "sha256:aa1", "sha256:ab2": "sha256:ab2", "b": "sha256:b"} {
		if img, err := x.find(prefix); err != nil || img.ID != want {
			t.Errorf("%s: %v %v", prefix, img, err)
		}
	}
	for _, prefix := range []string{"a", "ab"} {
		if _, err := x.find(prefix); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", prefix, err)
		}
	}
	if _, err := x.find("c"); !errdefs.IsNotFound(err) {
		t.Errorf("c: %v", err)
	}
}

package image

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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

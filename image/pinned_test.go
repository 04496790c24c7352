package image

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestParsePinned(t *testing.T) {
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for pattern, want := range map[string]map[string]bool{
		"busybox":           {"docker.io/library/busybox:latest": true, "docker.io/library/busybox:1": false, "docker.io/library/busybox" + digest: false},
		"h.test/a:v1":       {"h.test/a:v1": true, "h.test/a:v10": false, "x.h.test/a:v1": false},
		"h.test/a" + digest: {"h.test/a" + digest: true, "h.test/a:v1": false},
		"h.test/a*":         {"h.test/a:v1": true, "h.test/ab" + digest: true, "h.test/b:v1": false, "x.h.test/a:v1": false},
		"*pause*":           {"h.test/my-pause-image:v1": true, "h.test/a:v1": false},
		"*":                 {"h.test/a:v1": true},
	} {
		p, err := ParsePinned([]string{"other.test/x", pattern})
		if err != nil {
			t.Fatal(err)
		}
		for name, pinned := range want {
			if p.match([]string{"none.test/x:v1", name}) != pinned {
				t.Errorf("pattern %s, name %s: pinned is not %v", pattern, name, pinned)
			}
		}
	}
	for _, bad := range []string{"", "a*b", "*end", "a**", "*a*b*", " a*", "UPPER"} {
		if _, err := ParsePinned([]string{bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("pattern %q: %v", bad, err)
		}
	}
	if (Pinned{}).match([]string{"a"}) {
		t.Error("without a pattern something is pinned")
	}
}

// An image is pinned as long as one of its names is, also after a restart; it is
// removed when somebody asks for just that.
func TestPinnedImages(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{Pinned: []string{host + "/pinned*"}})
	img := pushSmall(t, host+"/pinned:v1", "x")
	push(t, host+"/other:v1", img)
	pushSmall(t, host+"/free:v1", "y")
	free, other := mustPull(t, s, host+"/free:v1"), mustPull(t, s, host+"/other:v1")
	if free.Pinned || other.Pinned {
		t.Error("an image is pinned that no pattern takes")
	}
	pinned := mustPull(t, s, host+"/pinned:v1")
	if !pinned.Pinned {
		t.Error("the pull's answer is not pinned")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != 2 {
		t.Fatalf("list: %v %v", list, err)
	}
	for _, img := range list {
		if img.Pinned != (img.ID == pinned.ID) {
			t.Errorf("after a restart: %v pinned %v", img.RepoTags, img.Pinned)
		}
	}
	if err := s.Remove(t.Context(), host+"/pinned:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), pinned.ID); !errdefs.IsNotFound(err) {
		t.Errorf("get after removal: %v", err)
	}
	if _, err := Open(t.Context(), Options{Root: t.TempDir(), Pinned: []string{"a*b"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("open with a bad pattern: %v", err)
	}
}

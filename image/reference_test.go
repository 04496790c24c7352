package image

import "testing"

func TestNameFor(t *testing.T) {
	const id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const digest = "r.test/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	tagged := Image{ID: id, RepoTags: []string{"docker.io/library/0123:latest", "r.test/app:v1"}, RepoDigests: []string{digest}}
	bare := Image{ID: id}
	for _, tc := range []struct {
		img   Image
		asked []string
		want  string
	}{
		{tagged, []string{"r.test/app:v1", id}, "r.test/app:v1"},
		{tagged, []string{"app", id}, "docker.io/library/app:latest"}, // another's by now
		{tagged, []string{digest, id}, digest},
		{tagged, []string{"r.test/app:v1@" + digest[len("r.test/app@"):], id}, digest},
		{tagged, []string{"", "r.test/app:v1"}, "r.test/app:v1"},
		{tagged, []string{id, id}, "docker.io/library/0123:latest"},
		{tagged, []string{"", "0123"}, "docker.io/library/0123:latest"},
		{Image{ID: id, RepoTags: []string{"r.test/app:v1"}}, []string{"", "0123"}, "r.test/app:v1"},
		{tagged, []string{"UPPER/Case@", id}, "docker.io/library/0123:latest"},
		{Image{ID: id, RepoDigests: []string{digest}}, []string{"", id}, digest},
		{bare, []string{"", id}, id},
	} {
		if got := tc.img.NameFor(tc.asked...); got != tc.want {
			t.Errorf("%q is shown as %s, want %s", tc.asked, got, tc.want)
		}
	}
}

package logs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

// TestNoLinkLeadsOut: a container that can write to the log folder cannot make the
// daemon write elsewhere, by a link at the log's place or on the way to it.
func TestNoLinkLeadsOut(t *testing.T) {
	for name, link := range map[string]string{"the folder": "sub", "a folder above": "a", "the log": "log"} {
		t.Run(name, func(t *testing.T) {
			folder, elsewhere := t.TempDir(), t.TempDir()
			paths := map[string]string{"sub": "sub/0.log", "a": "a/b/0.log", "log": "log"}
			if err := os.Symlink(elsewhere, filepath.Join(folder, link)); err != nil {
				t.Fatal(err)
			}
			f, err := openLog(folder, filepath.Join(folder, paths[link]))
			if err == nil {
				f.Close()
			}
			if !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v, want FailedPrecondition", err)
			}
			if left, _ := os.ReadDir(elsewhere); len(left) > 0 {
				t.Errorf("made %v", left)
			}
		})
	}
	folder := t.TempDir()
	f, err := openLog(folder, filepath.Join(folder, "a", "b", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

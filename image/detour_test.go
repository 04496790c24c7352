package image

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The library that unpacks a layer remembers the paths of its entries, which a
// symbolic link makes long, and the names of their owners: both are bounded.
func TestEntriesBoundWhatIsRememberedOfALayer(t *testing.T) {
	root := t.TempDir()
	long := filepath.Join(strings.Repeat("a", 200), strings.Repeat("b", 200), strings.Repeat("c", 200))
	mustMkdir(t, root, long)
	mustMkdir(t, root, "short")
	b := newBudget(Limits{})
	b.limits.complete()
	e := entries{budget: b, root: root}
	check := func(kind byte, name, link string) int64 {
		t.Helper()
		before := e.headers
		h := &tar.Header{Typeflag: kind, Name: name, Linkname: link, Uname: "u", Gname: "g"}
		if _, err := e.check(h); err != nil {
			t.Fatal(err)
		}
		if h.Uname != "" || h.Gname != "" {
			t.Error("names of owners are kept")
		}
		return e.headers - before - int64(len(name)+len(link))
	}
	if n := check(tar.TypeReg, "short/f", ""); n != 0 {
		t.Errorf("a file in a directory counts %d bytes more than its name", n)
	}
	check(tar.TypeSymlink, "l", long)
	if err := os.Symlink(long, filepath.Join(root, "l")); err != nil {
		t.Fatal(err)
	}
	extra := int64(len(long) - len("l"))
	for i := range 3 {
		if n := check(tar.TypeReg, fmt.Sprint("l/", i), ""); n != extra {
			t.Errorf("a file behind a link counts %d bytes more than its name, not %d", n, extra)
		}
	}
	// A link that takes the place of a directory, through that same directory.
	check(tar.TypeSymlink, "short/up", "..")
	if err := os.Symlink("..", filepath.Join(root, "short", "up")); err != nil {
		t.Fatal(err)
	}
	if n := check(tar.TypeReg, "short/up/f", ""); n != 0 {
		t.Errorf("a file in the root counts %d bytes more than its name", n)
	}
	check(tar.TypeSymlink, "short/up/short", long)
	mustMkdir(t, root, long, "up")
	if err := os.RemoveAll(filepath.Join(root, "short")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(long, filepath.Join(root, "short")); err != nil {
		t.Fatal(err)
	}
	if n := check(tar.TypeReg, "short/up/f", ""); n != int64(len(long)-len("short")) {
		t.Errorf("a file behind a new link counts %d bytes more than its name", n)
	}
	for i := 0; ; i++ {
		_, err := e.check(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("l/", i)})
		if err != nil && strings.Contains(err.Error(), "names and attributes") {
			break
		}
		if err != nil || i > maxHeaderBytes/len(long) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
}

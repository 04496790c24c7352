package inroot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"run": "/a", "rel": "a/./b", "a/up": "../../../../a/b", "gone": "/not/there", "two": "run/b/../b", "root": "/",
		"circle": "circle", "ping": "pong", "pong": "ping", "a/hidden": "/b", "file": "a/b",
		"to-mounted": "/vol/in", "deep": strings.Repeat("/a/b/../..", 400),
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "vol"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/elsewhere", filepath.Join(root, "vol/in")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/run": "/a", "/run/b": "/a/b", "/run/x/y": "/a/x/y", "/rel/x": "/a/b/x", "/a/up/x": "/a/b/x",
		"/gone/x": "/not/there/x", "/two": "/a/b", "/root": "/", "/root/run/b": "/a/b", "/../../run": "/a",
		"/circle": "/circle", "/circle/x": "/circle/x", "/ping/x": "/ping/x", "/to-mounted/x": "/elsewhere/x", "/deep/x": "/x",
	} {
		if got := Place(root, nil, name); got != want {
			t.Errorf("%s is at %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"/vol/in": "/vol/in", "/to-mounted/x": "/vol/in/x", "/run/hidden": "/a/hidden", "/run": "/a", "/rel": "/a/b", "/volume": "/volume",
	} {
		if got := Place(root, []string{"/vol", "/a"}, name); got != want {
			t.Errorf("with mounts, %s is at %s, want %s", name, got, want)
		}
	}
}

// An image may have many long links, each with the next one in it.
func TestPlaceOfABombEnds(t *testing.T) {
	root := t.TempDir()
	for i := range 60 {
		target := strings.Repeat(fmt.Sprintf("/l%d", i+1), 1000)
		if err := os.Symlink(target, filepath.Join(root, fmt.Sprintf("l%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if got := Place(root, nil, "/l0/x"); got != "/l0/x" {
		t.Errorf("it is at %.100s", got)
	}
	long := "/" + strings.Repeat("a/", 4000) + "x"
	if got := Place(root, nil, long); got != long {
		t.Errorf("it is at %.100s", got)
	}
}

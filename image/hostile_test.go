package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

func symlink(name, to string) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}, "")
}

func hardlink(name, to string) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}, "")
}

// victim is a directory that hostile layers aim at.
func victim(t *testing.T) (dir string, unharmed func()) {
	t.Helper()
	dir = t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	parent, before := lstat(t, dir), lstat(t, precious)
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("the directory outside holds %v, %v", entries, err)
		}
		if got := readFile(t, precious); got != "precious" {
			t.Errorf("the file outside holds %q", got)
		}
		after := lstat(t, precious)
		if after.Mode != before.Mode || after.Uid != before.Uid || after.Nlink != before.Nlink {
			t.Errorf("the file outside was %+v and is %+v", before, after)
		}
		if now := lstat(t, dir); now.Mode != parent.Mode || now.Uid != parent.Uid {
			t.Errorf("the directory outside was %+v and is %+v", parent, now)
		}
	}
}

// Layers that aim at the node: whatever becomes of the pull, nothing outside of
// the layer changes, and a refused image leaves nothing. Each is tried as the
// lowest layer and as an upper one, which take different ways.
func TestPullHostileLayers(t *testing.T) {
	needRoot(t)
	out, unharmed := victim(t)
	up := strings.Repeat("../", 20) + out[1:]
	odd := func(n string) func(*tar.Writer) {
		return entry(tar.Header{Name: n, Mode: 0o777, Uid: 1000}, "changed")
	}
	for name, c := range map[string]struct {
		layer   *rawLayer
		refused bool
	}{
		"write through an absolute link":     {gzipLayer(symlink("a", out), odd("a/precious"), odd("a/new")), false},
		"write through a relative link":      {gzipLayer(symlink("a", up), odd("a/precious"), odd("a/new")), false},
		"write through a chain of links":     {gzipLayer(symlink("a", "b"), symlink("b", "c/d"), dirEntry("c", 0o755), symlink("c/d", up), odd("a/precious")), false},
		"write over a link to the file":      {gzipLayer(symlink("a", out+"/precious"), odd("a")), false},
		"directory becomes a link":           {gzipLayer(dirEntry("a", 0o755), odd("a/x"), symlink("a", out), odd("a/precious")), false},
		"directory over a link":              {gzipLayer(symlink("a", out), entry(tar.Header{Name: "a", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 1000}, "")), false},
		"directory below a link":             {gzipLayer(symlink("a", out), entry(tar.Header{Name: "a/sub", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 1000}, "")), false},
		"hard link through a link":           {gzipLayer(symlink("a", out), dirEntry("b", 0o755), hardlink("b/x", "a/precious"), odd("b/x")), true},
		"hard link to a link":                {gzipLayer(symlink("a", out+"/precious"), hardlink("b", "a"), odd("b")), false},
		"hard link to an absolute path":      {gzipLayer(hardlink("b", out+"/precious"), odd("b")), true},
		"hard link upwards":                  {gzipLayer(hardlink("b", up+"/precious")), true},
		"hard link to itself":                {gzipLayer(hardlink("b", "b")), true},
		"entry upwards":                      {gzipLayer(odd(up + "/new")), true},
		"entry upwards later":                {gzipLayer(dirEntry("a", 0o755), odd("a/../../new")), true},
		"whiteout through a link":            {gzipLayer(symlink("a", out), file("a/.wh.precious", "")), false},
		"opaque directory through a link":    {gzipLayer(symlink("a", out), file("a/.wh..wh..opq", "")), false},
		"whiteout of the parent":             {gzipLayer(dirEntry("a", 0o755), file("a/.wh...", "")), true},
		"whiteout of the directory":          {gzipLayer(dirEntry("a", 0o755), file("a/.wh..", "")), true},
		"whiteout of the root":               {gzipLayer(file(".wh..", "")), true},
		"whiteout upwards":                   {gzipLayer(file("../.wh.x", "")), true},
		"links in a circle":                  {gzipLayer(symlink("a", "b"), symlink("b", "a"), odd("a/x")), true},
		"directory below a file":             {gzipLayer(odd("a"), odd("a/b")), true},
		"long name":                          {gzipLayer(odd(strings.Repeat("n", 300))), true},
		"long path":                          {gzipLayer(odd(strings.Repeat("n/", 3000) + "x")), true},
		"name of a megabyte":                 {gzipLayer(odd(strings.Repeat("n", 1<<20-100))), true},
		"long link":                          {gzipLayer(symlink("a", strings.Repeat("l", 5000))), true},
		"unknown kind":                       {gzipLayer(entry(tar.Header{Name: "x", Typeflag: 'Z'}, "")), true},
		"attributes for the overlay":         {gzipLayer(overlayEntry("a")), false},
		"the same file again":                {gzipLayer(odd("a"), file("a", "second"), hardlink("b", "a"), file("a", "third")), false},
		"negative size":                      {negativeSize(), true},
		"owner out of range":                 {gzipLayer(entry(tar.Header{Name: "x", Uid: 1 << 40, Gid: -5, Mode: 0o644}, "")), false},
		"nothing at all":                     {plainLayer(), false},
		"an entry for the root":              {gzipLayer(entry(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777}, "")), false},
		"a file for the root":                {gzipLayer(odd(".")), false},
		"a FIFO and a file of the same name": {gzipLayer(entry(tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o666}, ""), odd("p")), false},
	} {
		for _, below := range [][]*rawLayer{nil, {gzipLayer(dirEntry("a", 0o755), file("a/precious", "below"), file("keep", "x"))}} {
			t.Run(fmt.Sprintf("%s on %d", name, len(below)), func(t *testing.T) {
				host := newRegistry(t, nil)
				s := newStore(t, Options{})
				push(t, host+"/app", buildImage(t, v1.Config{}, append(below, c.layer)...))
				img, err := s.Pull(t.Context(), host+"/app", nil)
				unharmed()
				if c.refused != (err != nil) {
					t.Errorf("refused is not %v: %v", c.refused, err)
				}
				if err == nil {
					root := mounted(t, s, "c", img)
					if len(below) > 0 && readFile(t, root+"/keep") != "x" {
						t.Error("a file of the layer below is gone")
					}
					return
				}
				if !errdefs.IsInvalidArgument(err) || len(err.Error()) > maxErrorText+200 {
					t.Errorf("error of %d bytes: %.1000v", len(err.Error()), err)
				}
				wantNothingLeft(t, s)
			})
		}
	}
}

// overlayEntry says to the overlay file system what only a whiteout may say.
func overlayEntry(name string) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.trusted.overlay.opaque":   "y",
		"SCHILY.xattr.trusted.overlay.redirect": "/keep",
		"SCHILY.xattr.user.kept":                "yes",
	}}, "")
}

// What a layer says to the overlay file system itself, behind the back of the
// image format, whose whiteouts are files, is not heard.
func TestPullDropsOverlayAttributes(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app", buildImage(t, v1.Config{}, gzipLayer(dirEntry("a", 0o755), file("a/below", "x")), gzipLayer(overlayEntry("a"))))
	root := mounted(t, s, "c", mustPull(t, s, host+"/app"))
	if !exists(root + "/a/below") {
		t.Error("a directory became opaque without a whiteout")
	}
	directories, err := filepath.Glob(filepath.Join(s.dirs.snapshots(), "*/fs/a"))
	if err != nil || len(directories) != 2 {
		t.Fatalf("directories %v, %v", directories, err)
	}
	kept := false
	for _, dir := range directories {
		list := make([]byte, 1000)
		n, err := unix.Llistxattr(dir, list)
		if err != nil || strings.Contains(string(list[:n]), "trusted.overlay.") {
			t.Errorf("attributes %q, %v", list[:max(n, 0)], err)
		}
		kept = kept || strings.Contains(string(list[:n]), "user.kept")
	}
	if !kept {
		t.Error("another attribute is gone")
	}
}

// negativeSize is an archive whose header states a size of -1.
func negativeSize() *rawLayer {
	return changed(plainLayer(file("x", "")), func(blob []byte) {
		at := bytes.Index(blob, []byte("ustar")) - 257 // of the last header, there is one
		header := blob[at : at+512]
		copy(header[124:136], bytes.Repeat([]byte{0xff}, 12)) // base 256
		copy(header[148:156], "        ")
		sum := 0
		for _, b := range header {
			sum += int(b)
		}
		copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	})
}

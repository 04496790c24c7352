package image

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// rootOf pushes and pulls an image of the layers and mounts it.
func rootOf(t *testing.T, layers ...*rawLayer) string {
	t.Helper()
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app", buildImage(t, v1.Config{}, layers...))
	return mounted(t, s, "c", mustPull(t, s, host+"/app"))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestPullStacksLayers(t *testing.T) {
	root := rootOf(t,
		gzipLayer(
			dirEntry("etc", 0o755), file("etc/gone", "x"), file("etc/kept", "old"), file("etc/changed", "old"),
			dirEntry("opaque", 0o755), file("opaque/below", "x"),
			dirEntry("dir", 0o750), file("dir/a", "x"),
		),
		zstdLayer(
			file("etc/.wh.gone", ""), file("etc/changed", "new"),
			dirEntry("opaque", 0o755), file("opaque/.wh..wh..opq", ""), file("opaque/above", "y"),
		),
		plainLayer(
			file(".wh.dir", ""), file("dir2/implicit", "z"),
		),
	)
	for path, want := range map[string]string{
		"etc/kept": "old", "etc/changed": "new", "opaque/above": "y", "dir2/implicit": "z",
	} {
		if got := readFile(t, filepath.Join(root, path)); got != want {
			t.Errorf("%s holds %q, not %q", path, got, want)
		}
	}
	for _, path := range []string{"etc/gone", "opaque/below", "dir", "etc/.wh.gone"} {
		if exists(filepath.Join(root, path)) {
			t.Errorf("%s is there", path)
		}
	}
}

func TestPullKeepsAttributesOfALayer(t *testing.T) {
	root := rootOf(t, gzipLayer(
		entry(tar.Header{Name: "bin/su", Mode: 0o4755}, "x"),
		entry(tar.Header{Name: "bin/hard", Typeflag: tar.TypeLink, Linkname: "bin/su", Mode: 0o4755}, ""),
		entry(tar.Header{Name: "bin/soft", Typeflag: tar.TypeSymlink, Linkname: "/bin/su"}, ""),
		entry(tar.Header{Name: "owned", Mode: 0o640, Uid: 1000, Gid: 2000}, "x"),
		entry(tar.Header{Name: "marked", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.mark": "yes"}}, "x"),
	))
	if st := lstat(t, root+"/bin/su"); st.Mode&0o7777 != 0o4755 || st.Nlink != 2 {
		t.Errorf("su: mode %o, %d links", st.Mode, st.Nlink)
	}
	if st := lstat(t, root+"/owned"); st.Uid != 1000 || st.Gid != 2000 || st.Mode&0o777 != 0o640 {
		t.Errorf("owned: %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	if to, err := os.Readlink(root + "/bin/soft"); err != nil || to != "/bin/su" {
		t.Errorf("soft: %s %v", to, err)
	}
	value := make([]byte, 16)
	if n, err := unix.Lgetxattr(root+"/marked", "user.mark", value); err != nil || string(value[:n]) != "yes" {
		t.Errorf("xattr: %q %v", value[:max(n, 0)], err)
	}
}

// A directory that a later layer uses without listing it keeps the mode it has from
// below. Unpacking layers side by side loses it.
func TestPullKeepsTheModeOfImplicitDirectories(t *testing.T) {
	root := rootOf(t,
		gzipLayer(dirEntry("tmp", 0o1777), entry(tar.Header{Name: "home", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 1000, Gid: 1000}, "")),
		gzipLayer(file("other", "x")),
		gzipLayer(file("tmp/file", "x"), file("home/file", "x")),
	)
	if st := lstat(t, root+"/tmp"); st.Mode&0o7777 != 0o1777 {
		t.Errorf("/tmp has mode %o", st.Mode&0o7777)
	}
	if st := lstat(t, root+"/home"); st.Mode&0o7777 != 0o700 || st.Uid != 1000 {
		t.Errorf("/home has mode %o of %d", st.Mode&0o7777, st.Uid)
	}
}

// Links in a layer lead nowhere out of it while it is unpacked.
func TestPullKeepsLinksOfALayerInside(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	root := rootOf(t, gzipLayer(
		entry(tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: outside}, ""),
		file("abs/planted", "x"),
		entry(tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.." + outside}, ""),
		file("up/planted2", "x"),
		file("/absolute", "x"),
	))
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("the layer wrote outside of itself: %v", entries)
	}
	if !exists(root+"/absolute") || !exists(root+outside+"/planted") {
		t.Error("entries are missing inside")
	}
}

func TestPullRefusesBadLayers(t *testing.T) {
	needRoot(t)
	wrongID := gzipLayer(file("x", "x"))
	wrongID.diffID = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	truncated := gzipLayer(file("x", strings.Repeat("x", 4096)))
	truncated.blob = truncated.blob[:len(truncated.blob)-20]
	for name, l := range map[string]*rawLayer{
		"dotdot":       gzipLayer(file("../../etc/planted", "x")),
		"dotdot later": gzipLayer(file("a/../../planted", "x")),
		"dotdot link":  gzipLayer(file("a", "x"), entry(tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}, "")),
		"wrong diff":   wrongID,
		"truncated":    truncated,
		"not a tar":    {blob: []byte(strings.Repeat("garbage", 200)), diffID: wrongID.diffID, mediaType: "application/vnd.oci.image.layer.v1.tar"},
	} {
		t.Run(name, func(t *testing.T) {
			host := newRegistry(t, nil)
			s := newStore(t, Options{})
			push(t, host+"/app", buildImage(t, v1.Config{}, gzipLayer(file("good", "x")), l))
			_, err := s.Pull(t.Context(), host+"/app", nil)
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("pull: %v", err)
			}
			t.Log(err)
			wantNothingLeft(t, s)
		})
	}
}

// An image may bring device nodes; nobody can open them.
func TestMountRootfsGivesDeviceNodesNoEffect(t *testing.T) {
	root := rootOf(t, gzipLayer(
		entry(tar.Header{Name: "zero", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 5}, ""),
		entry(tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 7, Devminor: 0}, ""),
	))
	for _, dev := range []string{"zero", "disk"} {
		if _, err := os.Open(filepath.Join(root, dev)); !os.IsPermission(err) {
			t.Errorf("open %s: %v", dev, err)
		}
	}
}

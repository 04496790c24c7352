// Package testimages builds the images that demonstrations and tests run, and
// pushes them to a registry. Nothing is downloaded: the programs are Debian's
// static busybox and a small web server of this repository. The same inputs give
// the same digests.
//
// Images, all for this machine's architecture:
//
//	busybox   the applets as links in /bin; users root, app (1000), nobody (65534)
//	web       static web server; port from its first argument, or PORT, or 8080
//	nonroot   busybox with USER, WORKDIR, ENV, ENTRYPOINT, CMD, labels, STOPSIGNAL
package testimages

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time stamp of all files, so that digests do not change.
var epoch = time.Unix(1700000000, 0).UTC()

// Push builds all images and pushes them to host ("127.0.0.1:5000") over plain
// HTTP. It returns their references by name.
func Push(ctx context.Context, host string) (map[string]string, error) {
	images, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		ref := host + "/test/" + name + ":latest"
		if err := PushImage(ctx, ref, images[name]); err != nil {
			return nil, err
		}
		refs[name] = ref
	}
	return refs, nil
}

// PushImage pushes one image over plain HTTP.
func PushImage(ctx context.Context, ref string, img v1.Image) error {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return fmt.Errorf("parse image name: %w", err)
	}
	if err := remote.Write(r, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push image %s: %w", ref, err)
	}
	return nil
}

// Build builds all images, by name.
func Build(ctx context.Context) (map[string]v1.Image, error) {
	busybox, err := Busybox()
	if err != nil {
		return nil, err
	}
	web, err := Web(ctx)
	if err != nil {
		return nil, err
	}
	nonroot, err := Nonroot(busybox)
	if err != nil {
		return nil, err
	}
	return map[string]v1.Image{"busybox": busybox, "web": web, "nonroot": nonroot}, nil
}

// Busybox builds the image of that name. It needs Debian's busybox-static.
func Busybox() (v1.Image, error) {
	const program = "/bin/busybox"
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read busybox (install busybox-static): %w", err)
	}
	list, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	files := []File{
		{Path: "bin/busybox", Mode: 0o755, Content: binary},
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\n" +
			"app:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\napp:x:1000:\nstaff:x:50:app\nnogroup:x:65534:\n")},
		{Path: "tmp/", Mode: 0o1777},
		{Path: "root/", Mode: 0o700},
		{Path: "home/app/", Mode: 0o755, UID: 1000, GID: 1000},
		{Path: "var/run/", Mode: 0o755},
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			files = append(files, File{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	return Image(v1.Config{
		Env: []string{"PATH=/bin"},
		Cmd: []string{"sh"},
	}, files)
}

// Web builds the image of that name; it compiles the server, without cgo.
func Web(ctx context.Context) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "testimages-")
	if err != nil {
		return nil, fmt.Errorf("create build directory: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "web")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program,
		"github.com/cri-sandbox/cri-sandbox/hack/testimages/web")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build web server: %w: %s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read web server: %w", err)
	}
	return Image(v1.Config{
		Entrypoint:   []string{"/web"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	}, []File{{Path: "web", Mode: 0o755, Content: binary}})
}

// Nonroot builds the image of that name on top of another with a user "app".
func Nonroot(base v1.Image) (v1.Image, error) {
	l := layer([]File{
		{Path: "work/", Mode: 0o755, UID: 1000, GID: 1000},
		{Path: "work/hello", Mode: 0o644, UID: 1000, GID: 1000, Content: []byte("hello\n")},
	})
	return build(base, v1.Config{
		User:       "app",
		WorkingDir: "/work",
		Env:        []string{"PATH=/bin", "GREETING=hello"},
		Entrypoint: []string{"sh", "-c"},
		Cmd:        []string{"id; pwd; echo $GREETING; exec sleep 1000000"},
		Labels:     map[string]string{"org.example.purpose": "test"},
		StopSignal: "SIGINT",
	}, l)
}

// File is one entry of an image: a directory when Path ends in a slash, a symbolic
// link when Link is set, else a regular file.
type File struct {
	Path     string
	Mode     int64
	UID, GID int
	Link     string
	Content  []byte
}

// Image builds an image of one layer.
func Image(config v1.Config, files []File) (v1.Image, error) {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	return OnTop(base, config, files)
}

// OnTop adds a layer to an image and gives it another config.
func OnTop(base v1.Image, config v1.Config, files []File) (v1.Image, error) {
	return build(base, config, layer(files))
}

func build(base v1.Image, config v1.Config, l v1.Layer) (v1.Image, error) {
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, MediaType: types.OCILayer})
	if err != nil {
		return nil, fmt.Errorf("append layer: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Created = v1.Time{Time: epoch}
	file.Config = config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("set image config: %w", err)
	}
	return img, nil
}

// layer packs files into a compressed layer, in order of their paths, and with
// an entry for each directory on the way to them.
func layer(files []File) v1.Layer {
	files = withDirectories(files)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{
			Name: f.Path, Mode: f.Mode, Uid: f.UID, Gid: f.GID,
			Typeflag: tar.TypeReg, Size: int64(len(f.Content)), ModTime: epoch,
		}
		if strings.HasSuffix(f.Path, "/") {
			h.Typeflag = tar.TypeDir
		} else if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		}
		// Writes to memory do not fail; a header that cannot be written is a
		// mistake in this file.
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write(f.Content); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return newLayer(buf.Bytes())
}

func withDirectories(files []File) []File {
	have := map[string]bool{}
	for _, f := range files {
		have[f.Path] = true
	}
	all := slices.Clone(files)
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.Path, "/")); dir != "."; dir = path.Dir(dir) {
			if !have[dir+"/"] {
				have[dir+"/"] = true
				all = append(all, File{Path: dir + "/", Mode: 0o755})
			}
		}
	}
	slices.SortFunc(all, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

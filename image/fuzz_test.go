package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// A name that is taken is complete: written out it is the same name.
func FuzzName(f *testing.F) {
	known := &Image{ID: "sha256:" + strings.Repeat("ab", 32)}
	x := &index{images: []*Image{known}, byID: map[string]*Image{known.ID: known}, byName: map[string]*Image{"docker.io/library/app:v1": known}}
	f.Fuzz(func(t *testing.T, name string) {
		if img, err := x.find(name); (img == nil) == (err == nil) || err != nil && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			t.Errorf("find: %v, %v", img, err)
		}
		_ = repositoryOf(name)
		if p, err := ParsePinned([]string{name}); err == nil {
			p.match([]string{name})
		}
		named, err := parseName(name)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		again, err := parseName(named.String())
		if err != nil || again.String() != named.String() {
			t.Errorf("%s becomes %v, %v", named, again, err)
		}
		for _, r := range recordedNames(named, digest.FromString("x")) {
			if _, err := parseName(r); err != nil {
				t.Errorf("recorded name: %v", err)
			}
		}
	})
}

// Credentials are for one host, and an error tells nothing of them.
func FuzzCredentials(f *testing.F) {
	f.Fuzz(func(t *testing.T, user, password, auth, server, identity, token string) {
		k, err := newKeychain(&Credentials{
			Username: user, Password: password, Auth: auth, ServerAddress: server, IdentityToken: identity, RegistryToken: token,
		}, "registry.test")
		if err != nil {
			for _, secret := range []string{password, auth, server, identity, token} {
				if len(secret) > 12 && strings.Contains(err.Error(), secret) {
					t.Errorf("%v tells %q", err, secret)
				}
			}
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		hosts := 0
		for _, host := range []string{"registry.test", "mirror.test", "docker.io", ""} {
			if u, s, _ := k.basic(host); u+s != "" {
				hosts++
			}
		}
		if hosts > 1 {
			t.Errorf("%d hosts get the secret", hosts)
		}
		for _, s := range k.secrets() {
			if s != "" && strings.Contains(errorText(badLayer{textError("it is " + s)}, k.secrets()), s) && !strings.Contains("it is ***", s) {
				t.Errorf("the error tells %q", s)
			}
		}
	})
}

type textError string

func (e textError) Error() string { return string(e) }

// A manifest and its config that are taken keep to the limits and to each other.
func FuzzDocuments(f *testing.F) {
	f.Fuzz(func(t *testing.T, manifest, imageConfig []byte) {
		limits := Limits{}
		limits.complete()
		v := &visit{platform: platforms.Default(), budget: newBudget(limits), diffIDs: map[digest.Digest]digest.Digest{}}
		var m ocispec.Manifest
		var c ocispec.Image
		if json.Unmarshal(manifest, &m) != nil || v.takeManifest(m) != nil {
			return
		}
		var sum int64
		for _, l := range m.Layers {
			if sum += l.Size; l.Size < 0 || sum < 0 || sum > limits.UnpackedBytes {
				t.Fatalf("layers of %d bytes", sum)
			}
		}
		if json.Unmarshal(imageConfig, &c) != nil || v.takeConfig(m.Config.Digest, c) != nil {
			return
		}
		if !v.usable() || len(m.Layers) > limits.Layers || len(c.RootFS.DiffIDs) != len(m.Layers) {
			t.Errorf("%d layers, %d in the config", len(m.Layers), len(c.RootFS.DiffIDs))
		}
		for _, l := range m.Layers {
			if id := v.diffID(l.Digest); id.Validate() != nil {
				t.Errorf("layer %s amounts to %q", l.Digest, id)
			}
		}
	})
}

func FuzzLayerRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, blob []byte) {
		if r, err := parseLayerRecord(blob); err == nil && r.Version != 1 {
			t.Errorf("taken: %+v", r)
		}
	})
}

// A hosts.toml that passes our check is one that the library reads: it finds the
// hosts of the file, and does not skip it.
func FuzzHostsFile(f *testing.F) {
	dir := f.TempDir()
	configured := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: func(string) (string, error) { return dir, nil }})
	f.Fuzz(func(t *testing.T, blob []byte) {
		if _, err := parseHosts(blob); err != nil || len(blob) == 0 {
			return
		}
		var file hostsFile
		if err := unmarshalHosts(blob, &file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), blob, 0o600); err != nil {
			t.Fatal(err)
		}
		hosts, err := configured("registry.test")
		// More: a host is counted twice when another table stands between its own.
		if err == nil && len(hosts) < len(file.Host)+1 {
			t.Errorf("the library finds %d hosts in a file of %d", len(hosts), len(file.Host))
		}
	})
}

// Error answers of registries become one short line.
func FuzzRefusal(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		words := errorText(textError(refusal(bytes.NewReader(body))), []string{"secret"})
		if len(words) > 300 || strings.ContainsAny(words, "\n\r\x1b\x00") || strings.Contains(words, "secret") {
			t.Errorf("words %q", words)
		}
	})
}

// A request that is redirected keeps no secret of the first host.
func FuzzRedirect(f *testing.F) {
	f.Fuzz(func(t *testing.T, key, value, host string) {
		first, err := http.NewRequest(http.MethodGet, "https://registry.test/v2/app/blobs/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		first.Header.Set("Authorization", "Bearer hush")
		first.Header[http.CanonicalHeaderKey(key)] = []string{value}
		next, err := http.NewRequest(http.MethodGet, "https://"+host+"/x", nil)
		if err != nil || next.URL.Host == first.URL.Host {
			return
		}
		next.Header = first.Header.Clone()
		next.Response = &http.Response{Request: first}
		w := &watchedTransport{traffic: newTraffic()}
		out, err := w.guardSecrets(next)
		if err != nil {
			return
		}
		for name, values := range out.Header {
			switch name {
			case "Accept", "Range", "User-Agent", "Accept-Encoding":
			default:
				t.Errorf("%s goes along: %q", name, values)
			}
		}
	})
}

// oneBlob provides the same blob for each descriptor.
type oneBlob []byte

func (b oneBlob) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return blobReader{bytes.NewReader(b)}, nil
}

type blobReader struct{ *bytes.Reader }

func (blobReader) Close() error { return nil }

// Whatever a layer holds, nothing outside of its directory changes, and what it may
// fill is bounded.
func FuzzLayer(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	many := make([]func(*tar.Writer), 600)
	for i := range many {
		many[i] = file(fmt.Sprintf("f%d", i), "")
	}
	f.Add(gzipLayer(many...).blob, false)
	f.Fuzz(func(t *testing.T, blob []byte, upper bool) {
		base := t.TempDir()
		for _, dir := range []string{"layer", "below/a", "outside"} {
			if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		precious := filepath.Join(base, "outside", "precious")
		if err := os.WriteFile(precious, []byte("precious"), 0o640); err != nil {
			t.Fatal(err)
		}
		before := lstat(t, precious)
		mounts := []mount.Mount{{Type: "bind", Source: filepath.Join(base, "layer")}}
		if upper {
			mounts = []mount.Mount{{Type: "overlay", Options: []string{"upperdir=" + filepath.Join(base, "layer"), "lowerdir=" + filepath.Join(base, "below")}}}
		}
		a := applier{blobs: oneBlob(blob), budget: newBudget(Limits{UnpackedBytes: 1 << 20, Files: 100, Layers: 1}), diffID: func(digest.Digest) digest.Digest { return "" }}
		_, err := a.Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob), Size: int64(len(blob))}, mounts)
		if err == nil {
			t.Error("a layer was taken whose digest nobody knows")
		}
		entries, err := os.ReadDir(base)
		if err != nil || len(entries) != 3 {
			t.Errorf("the directory above the layer holds %v, %v", entries, err)
		}
		if got := readFile(t, precious); got != "precious" {
			t.Errorf("the file outside holds %q", got)
		}
		after := lstat(t, precious)
		if before.Mode != after.Mode || before.Uid != after.Uid || before.Nlink != after.Nlink || before.Ino != after.Ino {
			t.Errorf("the file outside was %+v and is %+v", before, after)
		}
		if names, err := os.ReadDir(filepath.Join(base, "below", "a")); err != nil || len(names) > 0 {
			t.Errorf("the layer below holds %v, %v", names, err)
		}
		used := newTally()
		if err := used.walk(t.Context(), filepath.Join(base, "layer")); err != nil || used.bytes > 2<<20 || used.inodes > 500 {
			t.Errorf("the layer takes %d bytes and %d files, %v", used.bytes, used.inodes, err)
		}
		_ = unix.Chmod(filepath.Join(base, "layer"), 0o755)
	})
}

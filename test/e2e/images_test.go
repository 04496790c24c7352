package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestImageAttributesReachTheContainer: what an image says of its files is so in
// a container, from layers on top of each other.
func TestImageAttributesReachTheContainer(t *testing.T) {
	k := imageKit{newKit(t)}
	attributes := k.testProgram("attributes")
	// struct vfs_cap_data, version 2: effective, CAP_NET_BIND_SERVICE permitted.
	const bindService = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	directory := func(name string, mode int64) tarEntry {
		return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}}
	}
	file := func(name string, mode int64, content string) tarEntry {
		return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode}, content: []byte(content)}
	}
	ref := k.pushOnBusybox("attributes",
		k.plainLayer(
			directory("t", 0o755),
			tarEntry{Header: tar.Header{Name: "t/suid", Typeflag: tar.TypeReg, Mode: 0o4755}, content: attributes},
			tarEntry{Header: tar.Header{Name: "t/plain", Typeflag: tar.TypeReg, Mode: 0o755}, content: attributes},
			tarEntry{Header: tar.Header{Name: "t/capable", Typeflag: tar.TypeReg, Mode: 0o755,
				PAXRecords: map[string]string{"SCHILY.xattr.security.capability": bindService}}, content: attributes},
			tarEntry{Header: tar.Header{Name: "t/marked", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1000, Gid: 50,
				PAXRecords: map[string]string{"SCHILY.xattr.user.mark": "here"}}},
			file("t/one", 0o644, "both\n"),
			tarEntry{Header: tar.Header{Name: "t/other", Typeflag: tar.TypeLink, Linkname: "t/one", Mode: 0o644}},
			directory("t/sticky", 0o1777),
			directory("t/opaque", 0o755), file("t/opaque/below", 0o644, ""),
			file("t/gone", 0o644, ""), directory("t/gonedir", 0o755), file("t/gonedir/x", 0o644, ""),
		),
		k.plainLayer(
			file("t/.wh.gone", 0, ""), file("t/.wh.gonedir", 0, ""),
			directory("t/opaque", 0o755), file("t/opaque/.wh..wh..opq", 0, ""), file("t/opaque/above", 0o644, ""),
			file("t/sticky/inside", 0o644, ""),
		))
	k.pull(ref)
	id, pod := k.pod()
	c := k.shell("a", `/t/plain /t/suid /t/marked /t/one /t/sticky
/t/suid; /t/capable
cat /t/other
ls -a /t /t/opaque`, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = ref
		security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
	})
	out := k.run(id, pod, c)
	k.wants(out,
		"uid 1000 euid 1000 effective 0000000000000000\n",
		"/t/suid mode 4755 owner 0:0 links 1 mark -",
		"/t/marked mode 640 owner 1000:50 links 1 mark here",
		"/t/one mode 644 owner 0:0 links 2",
		"/t/sticky mode 1777",
		"uid 1000 euid 0 ",
		"uid 1000 euid 1000 effective 0000000000000400\n",
		"both\n", "above\n")
	for _, gone := range []string{"gone", "below", ".wh."} {
		if strings.Contains(out, gone) {
			t.Errorf("%s is there:\n%s", gone, out)
		}
	}
	// A hard link stays one file when a container writes to it.
	out = k.run(id, pod, k.shell("b", "echo more >> /t/other; cat /t/other", func(c *runtimeapi.ContainerConfig) { c.Image.Image = ref }))
	k.wants(out, "both\nmore\n")
}

// TestImagesConfigInForce: pinned images are said to be, limits hold, and pulls
// under way are listed.
func TestImagesConfigInForce(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("[images]\npinned_images = ['*/test/web:*']\nmax_unpacked_size = '64MiB'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := imageKit{ownNode(t, testenv.Options{DaemonArgs: []string{"--config", config}})}
	list, err := k.images().ListImages(k.ctx, &runtimeapi.ListImagesRequest{})
	k.must(err)
	for _, img := range list.Images {
		if want := strings.Contains(img.RepoTags[0], "/test/web:"); img.Pinned != want || k.image(img.Id).Pinned != want {
			t.Errorf("%v: pinned is not %v", img.RepoTags, want)
		}
	}
	big := k.pushOnBusybox("big", k.plainLayer(tarEntry{Header: tar.Header{Name: "x", Mode: 0o644}, content: make([]byte, 65<<20)}))
	_, err = k.images().PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: big}})
	k.refused(err, codes.InvalidArgument, "67108864")
	resp, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{Verbose: true})
	k.must(err)
	k.wants(resp.Info["pulls"], "[]")
	k.removeImage(k.env.Images["web"])
	if k.image(k.env.Images["web"]) != nil {
		t.Error("an explicit removal left the pinned image")
	}
	k.must(k.env.Audit(k.ctx))
}

// TestRemoveImageKeepsItForItsContainers, over the death of the daemon; it goes with
// the last of them.
func TestRemoveImageKeepsItForItsContainers(t *testing.T) {
	k := imageKit{ownNode(t, testenv.Options{})}
	content := make([]byte, 2<<20)
	_, _ = rand.Read(content)
	ref := k.pushOnBusybox("used", k.plainLayer(tarEntry{Header: tar.Header{Name: "late", Mode: 0o644}, content: content}))
	imageID := k.pull(ref)
	id, pod := k.pod()
	useRef := func(c *runtimeapi.ContainerConfig) { c.Image.Image = ref }
	cid := k.start(id, pod, k.shell("a", "exec sleep 600", useRef))
	k.removeImage(k.env.Images["busybox"]) // shares all but the last layer
	k.removeImage(ref)
	if k.image(imageID) != nil {
		t.Error("the image is still listed")
	}
	_, err := k.env.Restart(k.ctx)
	k.must(err)
	if got := strings.TrimSpace(k.exec(cid, "wc -c < /late; sha256sum /late >/dev/null && echo read")); got != "2097152\nread" {
		t.Errorf("the container reads %q", got)
	}
	if st := k.status(cid); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING || st.ImageId != imageID {
		t.Errorf("the container is %v", st)
	}
	_, err = k.create(id, pod, k.shell("b", "true", useRef))
	k.refused(err, codes.NotFound)
	k.must(k.env.Client.RemovePod(k.ctx, id))
	for name := range k.env.Images {
		if name != "busybox" {
			k.removeImage(k.env.Images[name])
		}
	}
	k.wantsNoLayers()
	k.must(pullAll(k.ctx, k.env))
}

// wantsNoLayers waits until the store of images is empty; what a container held
// is collected behind its removal.
func (k imageKit) wantsNoLayers() {
	k.Helper()
	var found []string
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found = nil
		for _, dir := range []string{"content/ingest", "content/blobs/sha256", "overlayfs/snapshots", "rootfs", "trash"} {
			entries, err := filepath.Glob(filepath.Join(k.env.Root, "images", dir, "*"))
			k.must(err)
			found = append(found, entries...)
		}
		if len(found) == 0 {
			return
		}
	}
	k.Errorf("left behind: %v", found)
}

// TestPullImageResumesAfterAKill: a daemon that dies in the middle of a download goes on
// where the dead one was.
func TestPullImageResumesAfterAKill(t *testing.T) {
	k := imageKit{ownNode(t, testenv.Options{})}
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	layer := k.plainLayer(tarEntry{Header: tar.Header{Name: "random", Mode: 0o644}, content: content})
	digest, err := layer.Digest()
	k.must(err)
	r, err := layer.Compressed()
	k.must(err)
	var blob bytes.Buffer
	_, err = blob.ReadFrom(r)
	k.must(err)
	ref := k.pushOnBusybox("resumed", layer)
	var mu sync.Mutex
	var ranges []string
	host := k.registryBehind(func(registry http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
				registry.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			ranges = append(ranges, r.Header.Get("Range"))
			first := len(ranges) == 1
			mu.Unlock()
			if !first {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob.Bytes()))
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(blob.Len()))
			_, _ = w.Write(blob.Bytes()[:blob.Len()/2])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	})
	ref = strings.Replace(ref, k.env.Registry, host, 1)
	done := make(chan error)
	go func() {
		_, err := k.images().PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		done <- err
	}()
	for arrived := int64(0); arrived < 2<<20; time.Sleep(5 * time.Millisecond) {
		k.must(k.ctx.Err())
		files, err := filepath.Glob(filepath.Join(k.env.Root, "images/content/ingest/*/data"))
		k.must(err)
		for _, f := range files {
			if st, err := os.Stat(f); err == nil {
				arrived = max(arrived, st.Size())
			}
		}
	}
	k.must(k.env.Kill())
	if err := <-done; err == nil {
		t.Error("the pull ended well with a dead daemon")
	}
	_, err = k.env.Start(k.ctx)
	k.must(err)
	k.pull(ref)
	mu.Lock()
	last := ranges[len(ranges)-1]
	mu.Unlock()
	if !strings.HasPrefix(last, "bytes=") || last == "bytes=0-" {
		t.Errorf("the download began anew: ranges %q", ranges)
	}
	id, pod := k.pod()
	out := k.run(id, pod, k.shell("a", "sha256sum /random", func(c *runtimeapi.ContainerConfig) { c.Image.Image = ref }))
	k.wants(out, fmt.Sprintf("%x", sha256.Sum256(content)))
	k.must(k.env.Client.RemovePod(k.ctx, id))
	for _, name := range append([]string{ref}, k.env.Images["busybox"], k.env.Images["web"], k.env.Images["nonroot"]) {
		k.removeImage(name)
	}
	k.wantsNoLayers()
	k.must(pullAll(k.ctx, k.env))
}

package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// pushApps brings the node the image of all applications: Debian's packages on
// busybox, with the users that the packages would have made.
func pushApps(k kit) string {
	layer, err := os.ReadFile(filepath.Join(k.env.Repo, "bin", "apps.tar"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := exec.LookPath("apt-get"); err != nil {
			k.Skip("=== SKIPPED: the applications are Debian's packages, and there is no apt-get here ===")
		}
		k.Fatal("the applications are not there: run hack/setup.sh apps")
	}
	k.must(err)
	users := "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n" +
		"postgres:x:999:999::/var/lib/postgresql:/bin/sh\nredis:x:1000:1000::/data:/bin/false\n"
	ref := imageKit{k}.pushOnBusybox("apps", static.NewLayer(layer, types.OCIUncompressedLayer), imageKit{k}.plainLayer(
		tarEntry{Header: tar.Header{Name: "run", Typeflag: tar.TypeDir, Mode: 0o755}},
		tarEntry{Header: tar.Header{Name: "etc/passwd", Mode: 0o644}, content: []byte(users)},
		tarEntry{Header: tar.Header{Name: "etc/group", Mode: 0o644}, content: []byte("root:x:0:\nwww-data:x:33:\npostgres:x:999:\nredis:x:1000:\n")},
	))
	imageKit{k}.pull(ref)
	k.Cleanup(func() { imageKit{k}.removeImage(ref) })
	return ref
}

const fsGroup = 3000

// apps is the kubelet of a pod of applications.
type apps struct {
	kubelet
	image string
}

// pod runs a pod whose logs tell why it failed.
func (k apps) pod() (string, *runtimeapi.PodSandboxConfig) {
	k.Helper()
	id, pod := k.kubelet.pod()
	k.Cleanup(func() {
		logs, err := filepath.Glob(filepath.Join(pod.LogDirectory, "*.log"))
		for _, log := range logs {
			if text, rerr := testenv.ReadLog(log); k.Failed() {
				k.Logf("end of %s: %v\n%s", filepath.Base(log), errors.Join(err, rerr), text[max(0, len(text)-3000):])
			}
		}
	})
	return id, pod
}

// app is a container of an application, as root, or as a user who has the volumes by
// their group alone, the pod's fsGroup.
func (k apps) app(name string, uid int64, command string, mounts ...*runtimeapi.Mount) *runtimeapi.ContainerConfig {
	c := k.shell(name, command)
	c.Image.Image = k.image
	c.Envs = []*runtimeapi.KeyValue{{Key: "PATH", Value: []byte("/usr/sbin:/usr/bin:/sbin:/bin")}}
	c.Mounts = mounts
	if sc := security(c); uid != 0 {
		sc.RunAsUser, sc.RunAsGroup = &runtimeapi.Int64Value{Value: uid}, &runtimeapi.Int64Value{Value: uid}
		sc.SupplementalGroups = []int64{fsGroup}
	}
	return c
}

// claim is a volume that is there before the pod and that only its group, the fsGroup,
// may use.
func (k apps) claim(name string) string {
	dir := filepath.Join(k.dir, "volumes/kubernetes.io~csi", name, "mount")
	k.must(os.MkdirAll(dir, 0o755))
	k.must(os.Chown(dir, 0, fsGroup))
	k.must(os.Chmod(dir, os.ModeSetgid|0o770))
	return dir
}

func mountAt(path, source string) *runtimeapi.Mount {
	return &runtimeapi.Mount{ContainerPath: path, HostPath: source}
}

// config mounts a directory of testdata as the kubelet mounts a ConfigMap.
func (k apps) config(path, name string) *runtimeapi.Mount {
	dir, err := filepath.Abs(filepath.Join("testdata", "apps", name))
	k.must(err)
	to := filepath.Join(k.dir, "volumes/kubernetes.io~configmap", name)
	k.must(os.CopyFS(to, os.DirFS(dir)))
	return &runtimeapi.Mount{ContainerPath: path, HostPath: to, Readonly: true}
}

// stop ends a container with its stop signal, and returns how it ended.
func (k apps) stop(id string, grace int64) *runtimeapi.ContainerStatus {
	k.Helper()
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
	k.must(err)
	return k.wait(id)
}

// again is the next one of a container that has ended.
func again(c *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
	c.Metadata.Attempt++
	c.LogPath = fmt.Sprintf("%s.%d.log", c.Metadata.Name, c.Metadata.Attempt)
	return c
}

// answer asks until the answer holds want.
func (k apps) answer(want string, ask func() (string, error)) string {
	k.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(limit / 2); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got, err = ask(); err == nil && strings.Contains(got, want) {
			return got
		}
	}
	k.Fatalf("last answer %q, %v; want %q in it", got, err, want)
	return ""
}

// url is that of a port of a pod.
func (k apps) url(podID string, port int) string {
	ip, err := k.env.Client.PodIP(k.ctx, podID)
	k.must(err)
	return fmt.Sprintf("http://%s/", net.JoinHostPort(ip, fmt.Sprint(port)))
}

// fetch is what a server answers with 200.
func fetch(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

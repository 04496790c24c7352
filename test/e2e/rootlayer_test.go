package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// onLayers runs a test on a node for each place where containers can write to.
func onLayers(t *testing.T, more string, test func(k kit, layer string)) {
	for _, layer := range []string{"sandbox", "host"} {
		t.Run(layer, func(t *testing.T) {
			opts := nodeOptions
			opts.Config = "[containers]\nwritable_layer = \"" + layer + "\"\n" + more
			test(ownNode(t, opts), layer)
		})
	}
}

// filesOf lists the files of a layer or a volume on the host by name.
func filesOf(k kit, dir string) string {
	k.Helper()
	var names []string
	k.must(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, dir))
		return err
	}))
	return strings.Join(names, "\n")
}

// stateSize is what lies in the daemon's directory that ends with the machine's power.
func stateSize(k kit) (bytes int64) {
	k.Helper()
	k.must(filepath.WalkDir(k.env.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "rootfs" || d.Name() == "images" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return err
	}))
	return bytes
}

// TestRootLayerIsTheContainersOwn: all that a container writes counts as its own, is
// there after the daemon's death, and in a sandbox is none of the node's files.
func TestRootLayerIsTheContainersOwn(t *testing.T) {
	onLayers(t, "", func(k kit, layer string) {
		id, pod := k.pod()
		before := stateSize(k)
		c := k.shell("c", `cp /bin/sh /suid; chmod 4755 /suid; mkfifo /fifo; i=0; while [ $i -lt 500 ]; do echo > /f$i; i=$((i+1)); done
			for f in hostname hosts resolv.conf; do dd if=/dev/zero of=/etc/$f bs=1M count=16 2>/dev/null; done
			dd if=/dev/zero of=/tmp/big bs=1M count=64 2>/dev/null
			echo made; exec sleep 600`)
		cid := k.start(id, pod, c)
		k.logHas(pod, c, "made")
		if after := stateSize(k); after > before+4<<20 {
			k.Errorf("--state has grown from %d to %d bytes", before, after)
		}
		k.must(k.env.Kill())
		_, err := k.env.Start(k.ctx)
		k.must(err)
		k.wants(k.exec(cid, "ls -l /suid /fifo; ls / | grep -c ^f; wc -c < /etc/hosts"), "-rwsr-xr-x", "prw-", "501", fmt.Sprint(16<<20))

		var usage *runtimeapi.FilesystemUsage
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			resp, err := k.runtime().ContainerStats(k.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: cid})
			k.must(err)
			if usage = resp.Stats.GetWritableLayer(); usage.GetInodesUsed().GetValue() > 500 {
				break
			}
		}
		if b, n := usage.GetUsedBytes().GetValue(), usage.GetInodesUsed().GetValue(); b < 112<<20 || n < 502 || n > 600 {
			k.Errorf("the layer has %d bytes and %d inodes", b, n)
		}
		names := filesOf(k, filepath.Join(k.env.Root, "images", "rootfs", cid))
		if has := strings.Contains(names, "suid") || strings.Contains(names, "fifo"); has != (layer == "host") {
			k.Errorf("the node has %s", names)
		}
	})
}

// declaring pushes the busybox image with volumes and layers.
func (k imageKit) declaring(name string, volumes []string, layers ...v1.Layer) string {
	k.Helper()
	img, err := testimages.Busybox()
	k.must(err)
	for _, l := range layers {
		img, err = mutate.AppendLayers(img, l)
		k.must(err)
	}
	file, err := img.ConfigFile()
	k.must(err)
	config := *file.Config.DeepCopy()
	config.Volumes = map[string]struct{}{}
	for _, v := range volumes {
		config.Volumes[v] = struct{}{}
	}
	img, err = mutate.Config(img, config)
	k.must(err)
	ref := k.env.Registry + "/volume/" + name + ":1"
	k.must(testimages.PushImage(k.ctx, ref, img))
	k.pull(ref)
	k.Cleanup(func() { removeImage(k.kit, ref) })
	return ref
}

// TestVolumesOfAnImage: each can be written to, begins with what the image has, and
// costs the node nothing until then.
func TestVolumesOfAnImage(t *testing.T) {
	onLayers(t, "", func(k kit, layer string) {
		zeros := imageKit{k}.plainLayer(
			tarEntry{Header: tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7}},
			tarEntry{Header: tar.Header{Name: "data/big", Typeflag: tar.TypeReg, Mode: 0o644}, content: bytes.Repeat([]byte{0}, 40<<20)},
			tarEntry{Header: tar.Header{Name: "data/hard", Typeflag: tar.TypeLink, Linkname: "data/big", Mode: 0o644}},
			tarEntry{Header: tar.Header{Name: "data/old", Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1_000_000_000, 0)}},
			tarEntry{Header: tar.Header{Name: "alias", Typeflag: tar.TypeSymlink, Linkname: "/data"}},
			tarEntry{Header: tar.Header{Name: "var/run", Typeflag: tar.TypeSymlink, Linkname: "/run"}},
			tarEntry{Header: tar.Header{Name: "run/with/file", Typeflag: tar.TypeReg, Mode: 0o644}, content: []byte("of the image\n")},
		)
		// Through links, too; /alias is /data, and /var/run/vol is what is mounted at /run/vol.
		ref := imageKit{k}.declaring("zeros-"+layer, []string{"/data", "/none/deep", "/vol/in", "/var/run/with", "/var/run/none", "/alias", "/var/run/vol"}, zeros)
		id, pod := k.pod()
		vol, run := sharedDirectory(k, "covering-"+layer), sharedDirectory(k, "run-"+layer)
		for _, readonly := range []bool{false, true} {
			before := stateSize(k)
			c := testenv.ContainerConfig(fmt.Sprintf("c-%t", readonly), ref, "/bin/sh", "-c", `stat -c '%n %a %u %s' /data /data/big /none/deep
				stat -c '%n %h %Y' /data/old /data/hard; cat /run/with/file; stat -c '%n %a' /run/none
				for f in /data/x /none/deep/x /vol/in/x /run/with/x /var/run/none/x /run/vol/x; do echo written > $f && cat $f; done; rm /data/big /data/hard /data/old; ls /data /alias; echo x 2>/dev/null > /x || echo read-only`)
			security(c).ReadonlyRootfs = readonly
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: vol}, {ContainerPath: "/run/vol", HostPath: run}}
			out := k.run(id, pod, c)
			k.wants(out, "/data 750 7 ", fmt.Sprintf("/data/big 644 0 %d\n", 40<<20), "/none/deep 755 0 ", "/data/old 1 1000000000\n/data/hard 2 ", "of the image\n", "/run/none 755\n", strings.Repeat("written\n", 6), "/alias:\nx\n")
			if strings.Contains(out, "read-only") != readonly {
				k.Errorf("read-only %t: %s", readonly, out)
			}
			if after := stateSize(k); after > before+1<<20 {
				k.Errorf("--state has grown from %d to %d bytes", before, after)
			}
		}
		if got := filesOf(k, vol); got != "\n/in" {
			k.Errorf("the mounted directory has %q", got)
		}
		if got := filesOf(k, run); got != "\n/x" {
			k.Errorf("the directory at /run/vol has %q", got)
		}

		var many []string
		for i := range 20_000 {
			many = append(many, fmt.Sprintf("/v/%d", i))
		}
		_, err := k.create(id, pod, testenv.ContainerConfig("many", imageKit{k}.declaring("many-"+layer, many), "/bin/true"))
		k.refused(err, codes.InvalidArgument, "20000 volumes", "at most 64")
	})
}

// TestMountsKeepThePodsFiles: a volume at /etc does not hide how names are resolved,
// and what a container writes there is not the pod's.
func TestMountsKeepThePodsFiles(t *testing.T) {
	onLayers(t, "", func(k kit, layer string) {
		id, pod := k.pod()
		etc := sharedDirectory(k, "etc-"+layer)
		c := k.shell("c", "cat /etc/hostname; echo changed > /etc/hostname; cat /etc/hostname; dd if=/dev/zero of=/etc/hosts bs=1M count=16 2>&1; wc -c < /etc/resolv.conf; echo own > /etc/own",
			withMounts(&runtimeapi.Mount{ContainerPath: "/etc", HostPath: etc}))
		k.wants(k.run(id, pod, c), pod.Hostname+"\nchanged\n", "No space left on device")
		c.Metadata.Name, c.LogPath = "second", "second.log"
		c.Command = []string{"/bin/cat", "/etc/hostname"}
		k.wants(k.run(id, pod, c), pod.Hostname)
		for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
			if fi, err := os.Stat(filepath.Join(etc, name)); err != nil || fi.Size() != 0 {
				k.Errorf("the volume has %s: %v, %v", name, fi, err)
			}
		}

		// The image has its /etc elsewhere, and there the volume is.
		linked := imageKit{k}.declaring("etc-"+layer, nil, imageKit{k}.plainLayer(tarEntry{Header: tar.Header{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "/conf"}}))
		c = testenv.ContainerConfig("linked", linked, "/bin/cat", "/etc/hostname")
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/conf", HostPath: etc}}
		k.wants(k.run(id, pod, c), pod.Hostname)
	})
}

// TestRootLayerSizeIsLimited: a container that writes more is told so, and nobody else.
func TestRootLayerSizeIsLimited(t *testing.T) {
	opts := nodeOptions
	opts.Config = "[containers]\nmax_writable_layer_size = \"8MiB\"\n"
	k := ownNode(t, opts)
	id, pod := k.pod()
	out := k.run(id, pod, k.shell("c", "df -k / | tail -1; dd if=/dev/zero of=/big bs=1M count=20; rm /big; echo fits > /x; cat /x"))
	k.wants(out, " 8192 ", "No space left on device", "fits")
}

// TestRootLayerFilesAreNoMemory: what a container writes to its root file system is the
// disk's, whatever its memory limit.
func TestRootLayerFilesAreNoMemory(t *testing.T) {
	onLayers(t, "", func(k kit, _ string) {
		id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
			p.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 160 << 20}
		})
		c := k.shell("c", `i=0; while [ $i -lt 8 ]; do dd if=/dev/zero of=/big$i bs=1M count=32 2>/dev/null || exit 9
				dd if=/dev/zero of=/tmp/big$i bs=1M count=32 2>/dev/null || exit 9; i=$((i+1)); done
			cat /big* /tmp/big* | wc -c; echo end`)
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
		k.wants(k.run(id, pod, c), fmt.Sprint(512<<20), "end")
	})
}

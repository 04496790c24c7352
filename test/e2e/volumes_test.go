package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/volumeuser"
)

// kubelet plays the part of the kubelet's volume manager.
type kubelet struct {
	kit
	dir     string
	program *runtimeapi.Mount
}

// podUID is that of the pods of these tests.
const podUID = "5f8e9b7c-0000-4000-8000-6b756265"

func withUID(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = podUID }

func newKubelet(t *testing.T) kubelet {
	k := kubelet{kit: newKit(t), dir: filepath.Join(t.TempDir(), "pods", podUID)}
	bin := filepath.Join(k.dir, "bin")
	k.must(os.MkdirAll(bin, 0o755))
	k.must(volumeuser.Install(bin))
	k.program = &runtimeapi.Mount{ContainerPath: "/test", HostPath: bin, Readonly: true}
	return k
}

// emptyDir is a volume as the kubelet makes it for a pod with an fsGroup.
func (k kubelet) emptyDir(name string) string {
	dir := filepath.Join(k.dir, "volumes/kubernetes.io~empty-dir", name)
	k.must(os.MkdirAll(dir, 0o777))
	k.must(os.Chown(dir, 0, 3000))
	k.must(os.Chmod(dir, os.ModeSetgid|0o777))
	return dir
}

// subPath is a directory of a volume, which the kubelet mounts elsewhere.
func (k kubelet) subPath(volume, path, container string) string {
	source, target := filepath.Join(volume, path), filepath.Join(k.dir, "volume-subpaths", filepath.Base(volume), container, "0")
	k.must(os.MkdirAll(source, 0o777))
	k.must(os.Chmod(source, os.ModeSetgid|0o777))
	k.must(os.MkdirAll(target, 0o755))
	k.must(syscall.Mount(source, target, "", syscall.MS_BIND, ""))
	k.Cleanup(func() { k.must(syscall.Unmount(target, syscall.MNT_DETACH)) })
	return target
}

// user is a container that does with its volume what it is told to.
func (k kubelet) user(name string, volume *runtimeapi.Mount, actions ...string) *runtimeapi.ContainerConfig {
	c := k.shell(name, "")
	c.Command = append([]string{"/test/" + volumeuser.Name}, actions...)
	c.Mounts = []*runtimeapi.Mount{k.program, volume}
	sc := security(c)
	sc.RunAsUser, sc.SupplementalGroups = &runtimeapi.Int64Value{Value: 1000}, []int64{3000}
	return c
}

func mountOf(source string) *runtimeapi.Mount {
	return &runtimeapi.Mount{ContainerPath: "/vol", HostPath: source}
}

// nginx and php-fpm, an application and its database on a socket, writers of one log, a
// worker behind a lock: two containers of a pod use a volume as on one kernel.
func TestVolumesSharedByContainersOfAPod(t *testing.T) {
	k := newKubelet(t)
	volume := k.emptyDir("shared")
	id, pod := k.pod(withUID)
	server := k.user("server", mountOf(volume),
		"owner", "/vol", "listen", "/vol/socket", "flock", "/vol/flock", "fcntl", "/vol/fcntl", "map", "/vol/map", "mkfifo", "/vol/fifo",
		"owner", "/vol/flock", "owner", "/vol/socket", "owner", "/vol/fifo",
		"make", "/vol/ready", "watch", "/vol", "receive", "/vol/fifo", "await", "/vol/append", "append", "/vol/append", "make", "/vol/done", "sleep", "")
	serverID := k.start(id, pod, server)
	k.wants(k.logHas(pod, server, "watching"), "owner /vol: 0:3000 2777",
		"owner /vol/flock: 1000:3000 644", "owner /vol/socket: 1000:1000 755", "owner /vol/fifo: 1000:1000 644") // documented
	out := k.run(id, pod, k.user("client", mountOf(volume),
		"dial", "/vol/socket", "flock", "/vol/flock", "fcntl", "/vol/fcntl", "map", "/vol/map", "rename", "/vol/ready", "make", "/vol/new",
		"owner", "/vol/new", "send", "/vol/fifo", "append", "/vol/append", "await", "/vol/done", "lines", "/vol/append"))
	k.wants(out, "dial /vol/socket: hello", "flock /vol/flock: resource temporarily unavailable", "fcntl /vol/fcntl: resource temporarily unavailable",
		"map /vol/map: 2", "rename /vol/ready: moved", "owner /vol/new: 1000:3000 644", "lines /vol/append: 4000")
	k.wants(k.logHas(pod, server, "receive /vol/fifo"), "watch /vol: new", "through the pipe")

	// A directory of it, for a container that comes later, also one that may only read.
	sub := k.subPath(volume, "sub", "later")
	inner := k.user("inner", mountOf(volume), "listen", "/vol/sub/socket", "sleep", "")
	k.start(id, pod, inner)
	k.logHas(pod, inner, "bound")
	mount := mountOf(sub)
	mount.Readonly = true
	out = k.run(id, pod, k.user("later", mount, "dial", "/vol/socket", "make", "/vol/x"))
	k.wants(out, "dial /vol/socket: hello", "read-only file system")

	// The first one ends; who has joined it goes on, and so do those who come.
	k.must(k.stopAndRemove(serverID))
	out = k.run(id, pod, k.user("last", mountOf(volume), "dial", "/vol/sub/socket", "read", "/vol/new"))
	k.wants(out, "dial /vol/sub/socket: hello", "read /vol/new: made")
}

// What was written is there after the sandbox has died, as the kubelet's next one of the
// same pod finds it; and a volume is shared there, too. The daemon's death changes
// nothing.
func TestVolumesSharedOutliveSandboxAndDaemon(t *testing.T) {
	k := newKubelet(t)
	k.kit = ownNode(t, testenv.Options{})
	volume := k.emptyDir("shared")
	id, pod := k.pod(withUID)
	first := k.user("first", mountOf(volume), "make", "/vol/x", "listen", "/vol/socket", "sleep", "")
	k.start(id, pod, first)
	k.logHas(pod, first, "bound")
	k.must(k.env.Kill())
	_, err := k.env.Start(k.ctx)
	k.must(err)
	out := k.run(id, pod, k.user("second", mountOf(volume), "dial", "/vol/socket", "make", "/vol/y"))
	k.wants(out, "dial /vol/socket: hello")

	rec, err := readPodRecord(k.env, id)
	k.must(err)
	k.must(syscall.Kill(rec.Process.PID, syscall.SIGKILL))
	again, pod2 := k.pod(withUID, func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Attempt = 1 })
	third := k.user("third", mountOf(volume), "read", "/vol/x", "read", "/vol/y", "listen", "/vol/socket2", "sleep", "")
	k.start(again, pod2, third)
	k.wants(k.logHas(pod2, third, "listen /vol/socket2: bound"), "read /vol/x: made", "read /vol/y: made")
	k.wants(k.run(again, pod2, k.user("fourth", mountOf(volume), "dial", "/vol/socket2")), "hello")
}

// An emptyDir in memory is a tmpfs with the size, owner and mode that the kubelet has
// given it, for an init container, those that come after it, and subPaths of it.
func TestVolumesInMemory(t *testing.T) {
	k := newKubelet(t)
	volume := k.emptyDir("cache")
	k.must(syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=8m,mode=2777,gid=3000"))
	k.Cleanup(func() { k.must(syscall.Unmount(volume, syscall.MNT_DETACH)) })
	id, pod := k.pod(withUID)
	const tmpfs = "0x1021994"
	out := k.run(id, pod, k.user("init", mountOf(volume), "owner", "/vol", "filesystem", "/vol", "make", "/vol/x", "owner", "/vol/x"))
	k.wants(out, "owner /vol: 0:3000 2777", "filesystem /vol: "+tmpfs, "owner /vol/x: 1000:3000 644")
	part := k.user("part", mountOf(k.subPath(volume, "sub/dir", "part")), "owner", "/vol", "make", "/vol/y", "listen", "/vol/socket", "owner", "/vol/socket", "sleep", "")
	k.start(id, pod, part)
	k.wants(k.logHas(pod, part, "owner /vol/socket"), "owner /vol: 0:3000 2777", "owner /vol/socket: 1000:3000 755")
	out = k.run(id, pod, k.user("main", mountOf(volume), "read", "/vol/x", "read", "/vol/sub/dir/y", "dial", "/vol/sub/dir/socket"))
	k.wants(out, "read /vol/x: made", "read /vol/sub/dir/y: made", "dial /vol/sub/dir/socket: hello")
	size := k.shell("size", "df -k /vol | tail -n 1")
	size.Mounts = []*runtimeapi.Mount{mountOf(volume)}
	k.wants(k.run(id, pod, size), " 8192 ")
	if entries, err := os.ReadDir(volume); err != nil || len(entries) != 1 { // what the kubelet has made
		t.Errorf("the node has %v, %v", entries, err)
	}

	// Not what only looks like one: another pod's, and one that is none of its own.
	other := k.shell("other", "stat -f -c %t /vol")
	other.Mounts = []*runtimeapi.Mount{mountOf(volume)}
	another, pod2 := k.pod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name += "-other"; c.Metadata.Uid = "another" })
	k.wants(k.run(another, pod2, other), "1021997")
	onDisk := k.shell("disk", "stat -f -c %t /vol")
	onDisk.Mounts = []*runtimeapi.Mount{mountOf(k.emptyDir("disk"))}
	k.wants(k.run(id, pod, onDisk), "1021997")
}

// stopAndRemove ends a container.
func (k kit) stopAndRemove(id string) error {
	if _, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	_, err := k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return err
}

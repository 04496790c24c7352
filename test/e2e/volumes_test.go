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

func newKubelet(t *testing.T) kubelet {
	k := kubelet{kit: newKit(t), dir: t.TempDir()}
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

// subPath is a folder of a volume, which the kubelet mounts elsewhere.
func (k kubelet) subPath(volume, path, container string) string {
	source, target := filepath.Join(volume, path), filepath.Join(k.dir, "volume-subpaths", filepath.Base(volume), container)
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
func TestContainersOfAPodShareAVolume(t *testing.T) {
	k := newKubelet(t)
	volume := k.emptyDir("shared")
	id, pod := k.pod()
	server := k.user("server", mountOf(volume),
		"owner", "/vol", "listen", "/vol/socket", "flock", "/vol/flock", "fcntl", "/vol/fcntl", "map", "/vol/map", "mkfifo", "/vol/fifo",
		"make", "/vol/ready", "watch", "/vol", "receive", "/vol/fifo", "await", "/vol/append", "append", "/vol/append", "make", "/vol/done", "sleep", "")
	serverID := k.start(id, pod, server)
	k.wants(k.logHas(pod, server, "watching"), "owner /vol: 0:3000 2777")
	out := k.run(id, pod, k.user("client", mountOf(volume),
		"dial", "/vol/socket", "flock", "/vol/flock", "fcntl", "/vol/fcntl", "map", "/vol/map", "rename", "/vol/ready", "make", "/vol/new",
		"owner", "/vol/new", "send", "/vol/fifo", "append", "/vol/append", "await", "/vol/done", "lines", "/vol/append"))
	k.wants(out, "dial /vol/socket: hello", "flock /vol/flock: resource temporarily unavailable", "fcntl /vol/fcntl: resource temporarily unavailable",
		"map /vol/map: 2", "rename /vol/ready: moved", "owner /vol/new: 1000:3000 644", "lines /vol/append: 4000")
	k.wants(k.logHas(pod, server, "receive /vol/fifo"), "watch /vol: new", "through the pipe")

	// A folder of it, for a container that comes later, also one that may only read.
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
func TestASharedVolumeOutlivesSandboxAndDaemon(t *testing.T) {
	k := newKubelet(t)
	k.kit = ownNode(t, testenv.Options{})
	volume := k.emptyDir("shared")
	id, pod := k.pod()
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
	again, pod2 := k.pod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Attempt = 1 })
	third := k.user("third", mountOf(volume), "read", "/vol/x", "read", "/vol/y", "listen", "/vol/socket2", "sleep", "")
	k.start(again, pod2, third)
	k.wants(k.logHas(pod2, third, "listen /vol/socket2: bound"), "read /vol/x: made", "read /vol/y: made")
	k.wants(k.run(again, pod2, k.user("fourth", mountOf(volume), "dial", "/vol/socket2")), "hello")
}

// stopAndRemove ends a container.
func (k kit) stopAndRemove(id string) error {
	if _, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	_, err := k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return err
}

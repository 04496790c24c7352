package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

func asApp(c *runtimeapi.ContainerConfig) {
	security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
}

// TestUserNamespaceStreams: descriptors that the daemon made work in a sandbox whose
// root is not the host's: terminals, pipes, the programs given by descriptor.
func TestUserNamespaceStreams(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod(ownUsers)
	tty := k.shell("tty", "stat -c 'tty %u' /proc/self/fd/0; while read line; do echo got $line; done", withTerminal)
	ttyID := k.start(id, pod, tty)
	k.logHas(pod, tty, "tty ")
	r := k.attach(ttyID, true, true)
	r.send("through a terminal\n")
	r.stdout.wait(k.kit, "got through a terminal\r\n")

	pipe := k.shell("pipe", "echo up; while read line; do echo got $line > /dev/stderr; done", withStdin)
	pipeID := k.start(id, pod, pipe)
	k.logHas(pod, pipe, "up")
	r = k.attach(pipeID, true, false)
	r.send("through a pipe\n")
	r.stderr.wait(k.kit, "got through a pipe\n")

	r = k.executeTTY(pipeID, "/bin/sh")
	r.size(30, 90)
	r.send("stty size; id -u\n")
	r.stdout.wait(k.kit, "30 90\r\n0\r\n")
	r.send("sh -c 'echo armed; exec sleep 600'\n")
	r.stdout.wait(k.kit, "armed\r\n")
	r.send("\x03")
	r.send("echo code $?; exit 7\n")
	r.stdout.wait(k.kit, "code 130")
	r.exits(7)

	k.echoServer(id, pod, "127.0.0.1:7000")
	if err := exchange(k.forward(id, 7000), 1<<20); err != nil {
		t.Error(err)
	}
}

// TestUserNamespaceIsLikeAnyOther compares what programs see with a pod that has the
// host's ids.
func TestUserNamespaceIsLikeAnyOther(t *testing.T) {
	k := newKit(t)
	const script = `exec 2>&1; id; cat /proc/self/uid_map; ls -ldn / /tmp /etc /dev/shm /proc /home/app | awk '{print $1, $3, $4, $NF}'
		for f in /dev/stdout /dev/null /dev/zero /proc/self/comm /dev/shm/x /tmp/x /x /root/x; do
			(echo -n > $f) 2>/dev/null && echo "$f opens" || echo "$f does not"
		done
		mkdir /tmp/d && chmod 2755 /tmp/d && stat -c '%a %u:%g' /tmp/d; ln /etc/passwd /tmp/link && echo linked
		chown 5:5 /tmp/d 2>/dev/null && echo chowned; cat /proc/keys /sys/firmware/x 2>&1; echo > /proc/sys/kernel/hostname || echo protected`
	for name, change := range map[string]func(*runtimeapi.ContainerConfig){"root": func(*runtimeapi.ContainerConfig) {}, "app": asApp} {
		t.Run(name, func(t *testing.T) {
			k := k
			k.T = t
			var out []string
			for i, users := range []func(*runtimeapi.PodSandboxConfig){func(*runtimeapi.PodSandboxConfig) {}, ownUsers} {
				id, pod := k.pod(users, func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Attempt = uint32(i) })
				out = append(out, k.run(id, pod, k.shell("c", script, change)))
			}
			if out[0] != out[1] {
				t.Errorf("with the host's ids:\n%s\nwith its own:\n%s", out[0], out[1])
			}
		})
	}
}

// TestUserNamespaceDeclaredVolumes: what an image declares as a volume is the pod's.
func TestUserNamespaceDeclaredVolumes(t *testing.T) {
	k := newKit(t)
	busybox, err := testimages.Busybox()
	k.must(err)
	file, err := busybox.ConfigFile()
	k.must(err)
	config := *file.Config.DeepCopy()
	config.Volumes = map[string]struct{}{"/home": {}, "/none": {}}
	img, err := mutate.Config(busybox, config)
	k.must(err)
	ref := k.env.Registry + "/volume/declared:1"
	k.must(testimages.PushImage(k.ctx, ref, img))
	_, err = k.env.Client.Image.PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	k.Cleanup(func() { removeImage(k, ref) })
	id, pod := k.pod(ownUsers)
	c := testenv.ContainerConfig("c", ref, "/bin/sh", "-c", "stat -c '%n %u:%g' /home /home/app /none; touch /home/x /none/x && echo written")
	k.wants(k.run(id, pod, c), "/home 0:0", "/home/app 1000:1000", "/none 0:0", "written")
}

// TestUserNamespacePropagation: what is mounted on the host later appears below a
// mapped volume, as below any other.
func TestUserNamespacePropagation(t *testing.T) {
	k := newKit(t)
	dir := sharedDirectory(k, "slave")
	k.must(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	k.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	k.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
	sub := filepath.Join(dir, "sub")
	k.must(os.Mkdir(sub, 0o755))
	id, pod := k.pod(ownUsers)
	mount := func(path string) *runtimeapi.Mount {
		return &runtimeapi.Mount{
			ContainerPath: path, HostPath: dir, UidMappings: podRange(), GidMappings: podRange(),
			Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		}
	}
	private := mount("/private")
	private.Propagation = runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	cid := k.start(id, pod, k.shell("c", "exec sleep 600", withMounts(mount("/slave"), private)))
	k.must(unix.Mount("tmpfs", sub, "tmpfs", 0, "mode=755"))
	k.Cleanup(func() { _ = unix.Unmount(sub, unix.MNT_DETACH) })
	k.must(os.WriteFile(filepath.Join(sub, "late"), []byte("mounted later\n"), 0o644))
	k.wants(k.exec(cid, "cat /slave/sub/late; ls /private/sub; echo end"), "mounted later\nend")
}

// TestSupplementalGroupsPolicy: with Merge the groups of the image's etc/group count,
// with Strict those of the request alone; status and commands agree.
func TestSupplementalGroupsPolicy(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	for policy, want := range map[runtimeapi.SupplementalGroupsPolicy]string{
		runtimeapi.SupplementalGroupsPolicy_Merge: "50 777 1000", runtimeapi.SupplementalGroupsPolicy_Strict: "777 1000",
	} {
		t.Run(policy.String(), func(t *testing.T) {
			k := k
			k.T = t
			const groups = "id -G | tr ' ' '\n' | sort -nu | tr '\n' ' '"
			c := k.shell(policy.String(), groups+"; echo; exec sleep 600", asApp, func(c *runtimeapi.ContainerConfig) {
				sc := security(c)
				sc.RunAsGroup = &runtimeapi.Int64Value{Value: 1000}
				sc.SupplementalGroups, sc.SupplementalGroupsPolicy = []int64{777}, policy
			})
			cid := k.start(id, pod, c)
			if got := k.logHas(pod, c, "\n"); got != want+" \n" {
				t.Errorf("the process has the groups %q, want %q", got, want)
			}
			if got := k.exec(cid, groups); got != want+" " {
				t.Errorf("a command has the groups %q, want %q", got, want)
			}
			user := k.status(cid).GetUser().GetLinux()
			if got := fmt.Sprint(user.GetSupplementalGroups()); user.GetUid() != 1000 || user.GetGid() != 1000 || got != "["+want+"]" {
				t.Errorf("the status says %v", user)
			}
		})
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// hostRoot is the host's id of root in the pods of these tests.
const hostRoot = 1966080

func podRange() []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{ContainerId: 0, HostId: hostRoot, Length: 65536}}
}

// ownUsers gives a pod a user namespace, as the kubelet does for hostUsers: false.
func ownUsers(p *runtimeapi.PodSandboxConfig) {
	p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: podRange(), Gids: podRange()},
	}}
}

// sharedDirectory is a directory that a pod's ids may reach.
func sharedDirectory(k kit, name string) string {
	k.Helper()
	dir := filepath.Join(k.env.Dir, "volume-"+name)
	k.must(os.Mkdir(dir, 0o755))
	k.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func ownerOf(k kit, path string) (uid, gid uint32) {
	k.Helper()
	fi, err := os.Lstat(path)
	k.must(err)
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// TestUserNamespaceOwnsNothing looks from the host at the processes and files of a
// pod whose root is nobody there.
func TestUserNamespaceOwnsNothing(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod(ownUsers)
	c := k.shell("c", "echo made > /made; chown 1000:1000 /made; mkdir /sub; echo ready; exec sleep 600")
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "ready")
	ownNothing(k, id)
	rootfs := filepath.Join(k.env.State, "pods", id, cid, "rootfs")
	if _, err := os.Lstat(filepath.Join(rootfs, "made")); err == nil {
		t.Error("a file of the pod is one of the host's")
	}
	for name, want := range map[string]uint32{"etc/passwd": hostRoot, "home/app": hostRoot + 1000} {
		if uid, gid := ownerOf(k, filepath.Join(rootfs, name)); uid != want || gid != want {
			t.Errorf("on the host %s belongs to %d:%d, want %d", name, uid, gid, want)
		}
	}
	// In the pod it is as in any other.
	k.wants(k.exec(cid, "id; stat -c '%n %u:%g' /made /sub /etc/passwd /home/app /etc/hosts /etc/hostname"),
		"uid=0(root)", "/made 1000:1000", "/sub 0:0", "/etc/passwd 0:0", "/home/app 1000:1000", "/etc/hosts 0:0", "/etc/hostname 0:0")
}

// ownNothing checks the processes of a pod: they have its ids, and no others.
func ownNothing(k kit, pod string) {
	k.Helper()
	pids := podProcesses(k, pod)
	if len(pids) < 2 {
		k.Fatalf("processes of the pod: %v", pids)
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		k.must(err)
		k.wants(string(status), fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", hostRoot), fmt.Sprintf("Gid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", hostRoot))
		uids, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
		k.must(err)
		if got := strings.Join(strings.Fields(string(uids)), " "); got != fmt.Sprintf("0 %d 65536", hostRoot) {
			k.Errorf("process %d has the map %s", pid, got)
		}
	}
}

// podProcesses are the pids of a pod's sandbox process and gofers.
func podProcesses(k kit, pod string) []int {
	k.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	k.must(err)
	var pids []int
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(b), "cri-sandbox-") || !strings.Contains(string(b), pod) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestUserNamespaceVolumes: with mappings a volume reads and writes with the ids
// that it has on disk; without, its owner is nobody.
func TestUserNamespaceVolumes(t *testing.T) {
	k := newKit(t)
	dir := sharedDirectory(k, "mapped")
	k.must(os.WriteFile(filepath.Join(dir, "secret"), []byte("root's\n"), 0o600))
	k.must(os.WriteFile(filepath.Join(dir, "app"), []byte("app's\n"), 0o600))
	k.must(os.Chown(filepath.Join(dir, "app"), 1000, 1000))
	// The kubelet's directories of volumes are closed to others.
	closed := filepath.Join(sharedDirectory(k, "parent"), "closed")
	k.must(os.Mkdir(closed, 0o700))
	inner := filepath.Join(closed, "volume")
	k.must(os.Mkdir(inner, 0o777))
	k.must(os.Chmod(inner, 0o777))

	id, pod := k.pod(ownUsers)
	mapped := func(path, host string) *runtimeapi.Mount {
		return &runtimeapi.Mount{ContainerPath: path, HostPath: host, UidMappings: podRange(), GidMappings: podRange()}
	}
	out := k.run(id, pod, k.shell("root", `cat /vol/secret /vol/app; stat -c '%n %u:%g' /vol/secret /vol/app
		echo new > /vol/new; touch /file && stat -c '%n %u' /file
		echo x > /closed/x && echo closed written
		stat -c '%n %u' /plain/secret; cat /plain/secret || echo not mine`,
		func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{
				mapped("/vol", dir), mapped("/closed", inner), mapped("/file", filepath.Join(dir, "secret")),
				{ContainerPath: "/plain", HostPath: dir},
			}
		}))
	k.wants(out, "root's", "app's", "/vol/secret 0:0", "/vol/app 1000:1000", "/file 0", "closed written", "/plain/secret 65534", "not mine")
	if uid, _ := ownerOf(k, filepath.Join(dir, "new")); uid != 0 {
		t.Errorf("on disk the new file belongs to %d", uid)
	}
	out = k.run(id, pod, k.shell("app", `cat /vol/app; cat /vol/secret || echo not mine; id -u`, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{mapped("/vol", dir)}
		security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
	}))
	k.wants(out, "app's", "not mine", "1000")

	// Volumes with a mapping are not for such pods alone.
	id, pod = k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name += "-host" })
	out = k.run(id, pod, k.shell("plain", `stat -c '%n %u:%g' /vol/secret /vol/app`, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{mapped("/vol", dir)}
	}))
	k.wants(out, fmt.Sprintf("/vol/secret %[1]d:%[1]d", hostRoot), fmt.Sprintf("/vol/app %[1]d:%[1]d", hostRoot+1000))
}

func TestUserNamespaceBadRequests(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod(ownUsers)
	_, err := k.create(id, pod, k.shell("far", "true", func(c *runtimeapi.ContainerConfig) {
		security(c).RunAsUser = &runtimeapi.Int64Value{Value: 65536}
	}))
	k.refused(err, codes.InvalidArgument, "65536", "user namespace")
	_, err = k.create(id, pod, k.shell("other", "true", func(c *runtimeapi.ContainerConfig) {
		security(c).NamespaceOptions = &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}}
	}))
	k.refused(err, codes.InvalidArgument, "another user namespace")
	c := k.shell("unmappable", "true", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: "/proc/sys", UidMappings: podRange(), GidMappings: podRange()}}
	})
	cid, err := k.create(id, pod, c)
	k.must(err)
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
	k.refused(err, codes.FailedPrecondition, "/vol", "map ids")

	cfg := k.env.PodConfig("userns-hostnet")
	ownUsers(cfg)
	cfg.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	_, err = k.env.Client.RunPod(k.ctx, cfg)
	k.refused(err, codes.FailedPrecondition, "user namespace", "not possible in a gVisor sandbox")
}

// TestUserNamespaceSurvivesRestart: what pods rely on works in those with a user
// namespace, and a new daemon finds it.
func TestUserNamespaceSurvivesRestart(t *testing.T) {
	k := ownNode(t, testenv.Options{})
	dir := sharedDirectory(k, "restart")
	mapped := func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: dir, UidMappings: podRange(), GidMappings: podRange()}}
	}
	id, pod := k.pod(ownUsers)
	stays := k.shell("stays", `echo by name > /dev/stderr; echo shared > /dev/shm/x; while [ ! -e /vol/go ]; do sleep 0.05; done; echo went on; exec sleep 600`, mapped)
	staysID := k.start(id, pod, stays)
	k.logHas(pod, stays, "by name")
	lateID, err := k.create(id, pod, k.shell("late", "cat /dev/shm/x; stat -c '%n %u' /vol; exec sleep 600", mapped))
	k.must(err)
	_, err = k.env.Restart(k.ctx)
	k.must(err)

	k.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	k.logHas(pod, stays, "went on")
	k.wants(k.exec(staysID, "cat /dev/shm/x; id -u; echo ok > /tmp/x && cat /tmp/x"), "shared", "0", "ok")
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: lateID})
	k.must(err)
	k.logHas(pod, k.shell("late", ""), "shared")
	k.logHas(pod, k.shell("late", ""), "/vol 0")
	ownNothing(k, id)
	k.must(k.env.Client.RemovePod(k.ctx, id))
	k.must(k.env.Audit(k.ctx))
}

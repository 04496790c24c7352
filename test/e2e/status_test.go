package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mountOptionsHold tries the three options of mount_options on a volume that has
// a program, a set-uid program and a device.
func mountOptionsHold(k kit) map[string]bool {
	k.Helper()
	dir := k.TempDir()
	k.must(os.Chmod(dir, 0o755))
	k.must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	k.must(os.Chmod(filepath.Join(dir, "null"), 0o666))
	busybox, err := os.ReadFile("/bin/busybox")
	k.must(err)
	k.must(os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755))
	k.must(os.Chmod(filepath.Join(dir, "busybox"), 0o755|os.ModeSetuid))
	id, pod := k.pod()
	try := func(name, option, script string) bool {
		c := k.shell(name, script, func(c *runtimeapi.ContainerConfig) {
			m := &runtimeapi.Mount{ContainerPath: "/vol", HostPath: dir}
			if option != "" {
				m.MountOptions = []string{option}
			}
			c.Mounts = []*runtimeapi.Mount{m}
			security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		})
		return strings.Contains(k.run(id, pod, c), "DONE")
	}
	holds := map[string]bool{}
	for option, script := range map[string]string{
		"noexec": "/vol/busybox true && echo DONE; exit 0",
		// ping is an applet that keeps the rights of a set-uid program.
		"nosuid": `/vol/busybox ping -c 5 127.0.0.1 >/dev/null 2>&1 & sleep 0.5; grep -q "^Uid:[[:space:]]*1000[[:space:]]*0[[:space:]]" /proc/$!/status && echo DONE; exit 0`,
		"nodev":  "echo x > /vol/null && echo DONE; exit 0",
	} {
		without, with := try(option+"-without", "", script), try(option, option, script)
		if !without {
			k.Errorf("%s: what it forbids does not happen without it, either", option)
		}
		holds[option] = !with
	}
	return holds
}

func TestStatusClaimsWhatWorks(t *testing.T) {
	k := newKit(t)
	resp, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{Verbose: true})
	k.must(err)
	holds := mountOptionsHold(k)
	t.Logf("mount options that hold: %v", holds)
	if !holds["noexec"] || !holds["nosuid"] {
		t.Error("noexec and nosuid are documented to hold")
	}
	if all := holds["noexec"] && holds["nosuid"] && holds["nodev"]; resp.Features.GetMountOptions() != all {
		t.Errorf("mount options are claimed: %v; they hold: %v", resp.Features.GetMountOptions(), holds)
	}
	// Each of the others is refused where it is asked for, see the tests of package spec.
	if !resp.Features.GetSupplementalGroupsPolicy() || resp.Features.GetUserNamespacesHostNetwork() {
		t.Errorf("features %v", resp.Features)
	}
	names := map[string]bool{}
	for _, h := range resp.RuntimeHandlers {
		names[h.Name] = true
		if !h.Features.GetUserNamespaces() || !h.Features.GetRecursiveReadOnlyMounts() {
			t.Errorf("handler %q claims %v", h.Name, h.Features)
		}
	}
	if !names[""] || !names["gvisor"] || len(names) != 2 {
		t.Errorf("handlers %v", names)
	}
}

func TestStatusVerbose(t *testing.T) {
	k := newKit(t)
	resp, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{Verbose: true})
	k.must(err)
	for key, words := range map[string][]string{
		"config":  {k.env.Root},
		"runtime": {"cgroup", "version"},
		"network": {k.env.Name, "bridge", filepath.Base(onlyConf(k))},
	} {
		if !json.Valid([]byte(resp.Info[key])) {
			t.Errorf("%s is no JSON: %q", key, resp.Info[key])
		}
		k.wants(resp.Info[key], words...)
	}
	quiet, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{})
	k.must(err)
	if len(quiet.Info) > 0 {
		t.Errorf("info without verbose: %v", quiet.Info)
	}
	out, err := k.env.Crictl(k.ctx, "info")
	k.must(err)
	k.wants(out, "RuntimeReady", k.env.Name)

	id, _ := k.pod()
	pod, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	k.must(err)
	k.wants(pod.Info["info"], `"pid"`, `"netns"`, `"cgroups"`, `"limits"`)
	_, err = k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "ffffffffffff", Verbose: true})
	k.refused(err, codes.NotFound, "ffffffffffff")
}

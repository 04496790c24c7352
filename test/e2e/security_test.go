package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUsersAndGroups(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	for _, c := range []struct {
		name string
		set  func(*runtimeapi.LinuxContainerSecurityContext)
		want string
	}{
		{"image-default", func(*runtimeapi.LinuxContainerSecurityContext) {}, "uid=0(root)"},
		{"by-id", func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.RunAsUser = &runtimeapi.Int64Value{Value: 1000} }, "uid=1000(app)"},
		{"by-name", func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.RunAsUsername = "app" }, "uid=1000(app)"},
		{"unknown-id", func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.RunAsUser, sc.RunAsGroup = &runtimeapi.Int64Value{Value: 4242}, &runtimeapi.Int64Value{Value: 4343}
			sc.SupplementalGroups = []int64{5, 6}
		}, "uid=4242 gid=4343 groups=5,6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := k
			k.T = t
			out := k.run(id, pod, k.shell(c.name, "id", func(cc *runtimeapi.ContainerConfig) { c.set(security(cc)) }))
			out = strings.NewReplacer("groups=4343,", "groups=").Replace(out)
			k.wants(out, c.want)
		})
	}
}

func TestCapabilitiesAndPrivileges(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	caps := "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"
	out := k.run(id, pod, k.shell("default", caps))
	k.wants(out, "CapEff:\t00000000a80425fb")
	out = k.run(id, pod, k.shell("drop", caps, func(c *runtimeapi.ContainerConfig) {
		security(c).Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
		security(c).NoNewPrivs = true
	}))
	k.wants(out, "CapEff:\t0000000000000400", "CapBnd:\t0000000000000400")
	out = k.run(id, pod, k.shell("user", caps, func(c *runtimeapi.ContainerConfig) {
		security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
	}))
	k.wants(out, "CapEff:\t0000000000000000")
}

func TestSetUIDIsHonouredUnlessForbidden(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	asUser := func(nnp bool) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
			security(c).NoNewPrivs = nnp
		}
	}
	// Not busybox, which gives set-uid away by itself.
	dir := t.TempDir()
	k.must(os.Chmod(dir, 0o755))
	prog := filepath.Join(dir, "ids")
	build := exec.CommandContext(k.ctx, "go", "build", "-o", prog, "./testdata/ids")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	k.must(os.Chmod(prog, 0o755|os.ModeSetuid))
	mount := func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/suid", HostPath: dir, Readonly: true}}
	}
	k.wants(k.run(id, pod, k.shell("allowed", "/suid/ids", mount, asUser(false))), "uid 1000 euid 0")
	k.wants(k.run(id, pod, k.shell("forbidden", "/suid/ids", mount, asUser(true))), "uid 1000 euid 1000")
}

func TestReadOnlyRoot(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	out := k.run(id, pod, k.shell("ro", "touch /x 2>&1; touch /dev/shm/x && echo shm", func(c *runtimeapi.ContainerConfig) {
		security(c).ReadonlyRootfs = true
	}))
	k.wants(out, "Read-only file system", "shm")
}

func TestMaskedAndReadonlyPaths(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("mask", `ls /sys/firmware | wc -l
cat /proc/meminfo | wc -c
(echo 1024 60000 > /proc/sys/net/ipv4/ip_local_port_range && echo WRITTEN) 2>&1
cat /proc/sys/kernel/hostname
exec sleep 600`, func(c *runtimeapi.ContainerConfig) {
		security(c).MaskedPaths = []string{"/sys/firmware", "/proc/meminfo", "/proc/kcore", "/proc/no-such"}
		security(c).ReadonlyPaths = []string{"/proc/sys", "/proc/irq"}
	})
	k.start(id, pod, c)
	out := k.logHas(pod, c, pod.Hostname)
	if !strings.HasPrefix(out, "0\n0\n") {
		t.Errorf("masked paths show something:\n%s", out)
	}
	k.wants(out, "Read-only file system")
	if strings.Contains(out, "WRITTEN") {
		t.Errorf("/proc/sys was written to:\n%s", out)
	}
}

func TestSeccompIsEnforcedInside(t *testing.T) {
	k := newKit(t)
	profile := filepath.Join(t.TempDir(), "no-mkdir.json")
	k.must(os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o644))
	id, pod := k.pod()
	out := k.run(id, pod, k.shell("local", "mkdir /tmp/x 2>&1; touch /tmp/y && echo touched", func(c *runtimeapi.ContainerConfig) {
		security(c).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
	}))
	k.wants(out, "Operation not permitted", "touched")
	out = k.run(id, pod, k.shell("default", "grep Seccomp: /proc/self/status", func(c *runtimeapi.ContainerConfig) {
		security(c).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}))
	k.wants(out, "Seccomp:\t2")
}

func TestSysctlsOfAPod(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.Sysctls = map[string]string{
			"net.ipv4.ip_local_port_range": "2000 3000", "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.tcp_syncookies": "1",
		}
	})
	c := k.shell("a", "cd /proc/sys/net/ipv4; cat ip_local_port_range ip_unprivileged_port_start tcp_syncookies; nc -l -p 80 & sleep 0.2; kill %1 && echo listened",
		func(c *runtimeapi.ContainerConfig) {
			security(c).RunAsUser = &runtimeapi.Int64Value{Value: 1000}
			security(c).Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		})
	k.wants(k.run(id, pod, c), "2000\t3000\n0\n1\nlistened\n")
}

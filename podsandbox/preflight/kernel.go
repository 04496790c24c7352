package preflight

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
)

// built is a time that has passed: no clock that is right shows an earlier one.
var built = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

func user(context.Context, Options) []Finding {
	if os.Geteuid() != 0 {
		return bad("Run this, and the daemon, as root.", "not root: most answers below are of no use")
	}
	return good("root")
}

// The oldest kernel is given by close_range(2) with CLOSE_RANGE_CLOEXEC, 5.11.
const minMajor, minMinor = 5, 11

func kernel(context.Context, Options) []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return bad("Run on Linux.", "uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return bad("Use an amd64 or arm64 node.", "gVisor does not run on %s", runtime.GOARCH)
	}
	major, minor := parseRelease(release)
	if major < minMajor || major == minMajor && minor < minMinor {
		return bad(fmt.Sprintf("Install a kernel of %d.%d or later.", minMajor, minMinor), "Linux %s is too old", release)
	}
	return good("Linux %s, %s", release, runtime.GOARCH)
}

// parseRelease returns the first two numbers of a release such as 6.1.0-13-amd64.
func parseRelease(release string) (major, minor int) {
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return 0, 0
	}
	return major, minor
}

func clock(context.Context, Options) []Finding {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(strings.TrimSpace(string(id))) != 36 {
		return bad("Mount /proc with all of its files: the daemon tells reboots by this one.", "the boot id cannot be read: %v", err)
	}
	if now := time.Now(); now.Before(built) {
		return bad("Set the clock, best by a time service: certificates of registries would not be valid.", "the clock says %s, which is past", now.Format(time.DateTime))
	}
	return good("%s, boot %s", time.Now().Format(time.DateTime), id[:8])
}

// neededControllers are those without which limits of pods do not hold.
var neededControllers = []string{"cpu", "memory", "pids"}

func cgroups(context.Context, Options) []Finding {
	version, systemd := cgroup.Mode()
	if version == 0 {
		return bad("Mount cgroup2 at /sys/fs/cgroup.", "no control groups are mounted")
	}
	have := cgroup.Controllers()
	for _, name := range neededControllers {
		if !slices.Contains(have, name) {
			return bad(fmt.Sprintf("Turn the controller %s on, in the kernel's command line or the parent group's cgroup.subtree_control.", name),
				"cgroup v%d without the controller %s (there are %s)", version, name, strings.Join(have, " "))
		}
	}
	driver := "cgroupfs"
	if systemd {
		driver = "systemd"
	}
	message := fmt.Sprintf("v%d with %s, driver %s", version, strings.Join(have, " "), driver)
	if version == 1 {
		return warn("Boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1); until then the kubelet needs failCgroupV1: false.", "%s; the kubelet is about to drop v1", message)
	}
	return good("%s", message)
}

// namespaces forks a process with all namespaces that a sandbox has.
func namespaces(context.Context, Options) []Finding {
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}}
	cmd := exec.Command("/proc/self/exe", "version")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
	}
	if err := cmd.Run(); err != nil {
		return bad("Set user.max_user_namespaces and the other sysctls user.max_*_namespaces to some thousands, and let no security module forbid them.",
			"a process with its own user, pid, mount, ipc, uts and network namespaces cannot be made: %v", err)
	}
	if most := readInt("/proc/sys/user/max_user_namespaces"); most >= 0 && most < 1024 {
		return warn("Set user.max_user_namespaces to 10000.", "only %d user namespaces are allowed, each pod needs one and each container one", most)
	}
	return good("user, pid, mount, ipc, uts, network")
}

func seccomp(context.Context, Options) []Finding {
	raw, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return bad("Use a kernel with CONFIG_SECCOMP_FILTER.", "the kernel has no seccomp filters: %v", err)
	}
	have := strings.Fields(string(raw))
	for _, action := range []string{"trap", "kill_process", "errno", "allow"} {
		if !slices.Contains(have, action) {
			return bad("Use a kernel of 4.14 or later with CONFIG_SECCOMP_FILTER.", "seccomp has no action %s", action)
		}
	}
	return good("filters with %s", strings.Join(have, " "))
}

// ptrace: the sandbox makes the processes that containers run in by tracing them.
func ptrace(context.Context, Options) []Finding {
	if scope := readInt("/proc/sys/kernel/yama/ptrace_scope"); scope >= 3 {
		return bad("Set kernel.yama.ptrace_scope to 2 or less and reboot: 3 cannot be taken back.", "no process may trace another, which every sandbox does with its own")
	}
	return good("processes may trace their children")
}

func limits(context.Context, Options) []Finding {
	var all []Finding
	var nofile unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err == nil && nofile.Max < 65536 {
		all = append(all, warn("Set LimitNOFILE=1048576 in the daemon's unit, or hard nofile in limits.conf for where it is started from.",
			"%d open files are allowed here, which is enough for about %d containers", nofile.Max, nofile.Max/16)...)
	}
	if n := readInt("/proc/sys/fs/inotify/max_user_instances"); n >= 0 && n < 512 {
		all = append(all, warn("Set fs.inotify.max_user_instances to 8192.", "root may have %d inotify instances, which the kubelet and log readers share", n)...)
	}
	if n := readInt("/proc/sys/kernel/pid_max"); n >= 0 && n < 65536 {
		all = append(all, warn("Set kernel.pid_max to 4194304.", "the node can have %d threads; a pod's sandbox has tens", n)...)
	}
	if len(all) == 0 {
		return good("%d open files, inotify instances and threads enough", nofile.Max)
	}
	return all
}

// readInt returns -1 for what is not there.
func readInt(path string) int {
	raw, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return -1
	}
	return n
}

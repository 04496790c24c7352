package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the processes of a sandbox may hold, each in a user namespace that is not
// the node's. The Sentry opens and makes files of any owner below the directories that
// it was given, and traces the processes that containers run in; the gofer also
// changes its root.
const (
	filesCaps  = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID
	sentryCaps = filesCaps | 1<<unix.CAP_SYS_PTRACE
	goferCaps  = filesCaps | 1<<unix.CAP_SYS_CHROOT
	// On the node's network the Sentry is in the node's user namespace, too.
	hostNetworkCaps = sentryCaps | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
)

// TestSandboxProcessIsConfined reads back from /proc what the node sees of a
// pod's processes: nothing may have more than the tables here.
func TestSandboxProcessIsConfined(t *testing.T) {
	for _, c := range []struct {
		name   string
		host   bool
		sentry uint64
	}{{"own network", false, sentryCaps}, {"network of the node", true, hostNetworkCaps}} {
		t.Run(c.name, func(t *testing.T) {
			k := newKit(t)
			id := startWithVolume(k, c.host)
			sentry, gofer, stubs := processesOf(k, id)
			shared := []string{"cgroup", "time"} // has no /proc to see the one; the other is the node's for all
			if c.host {
				confined(k, "sentry", sentry, c.sentry, append(shared, "net", "user"))
			} else {
				confined(k, "sentry", sentry, c.sentry, shared)
			}
			confined(k, "gofer", gofer, goferCaps, shared)
			for _, pid := range stubs {
				withinCaps(k, "stub", readFile(k, "/proc/"+pid+"/status"), c.sentry)
				filtered(k, "stub", readFile(k, "/proc/"+pid+"/status"))
			}
			k.wants(readFile(k, "/proc/"+sentry+"/cgroup"), id)
			k.wants(readFile(k, "/proc/"+gofer+"/cgroup"), id)
			if n := strings.Count(readFile(k, "/proc/"+sentry+"/mountinfo"), "\n"); n != 1 {
				t.Errorf("the sentry has %d mounts, want its empty root alone", n)
			}
			if root, err := os.ReadDir("/proc/" + sentry + "/root"); err != nil || len(root) > 4 {
				t.Errorf("the sentry sees %v (%v) of the node's files", root, err)
			}
			allowed := mountIDs(k, gofer)
			descriptors(k, "sentry", sentry, id, allowed)
			descriptors(k, "gofer", gofer, id, allowed)
		})
	}
}

// startWithVolume runs a pod with a container that has a volume, and so a gofer
// with files.
func startWithVolume(k kit, hostNetwork bool) string {
	k.Helper()
	node := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		if hostNetwork {
			p.Hostname = ""
			p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: node}
		}
	})
	dir := k.TempDir()
	k.must(os.Chmod(dir, 0o755))
	k.start(id, pod, k.shell("a", "exec sleep 600", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/vol", HostPath: dir}}
		if hostNetwork {
			security(c).NamespaceOptions = node
		}
	}))
	return id
}

// processesOf finds the pids of a pod with one container.
func processesOf(k kit, id string) (sentry, gofer string, stubs []string) {
	k.Helper()
	sentry = sandboxPID(k, id)
	files, err := filepath.Glob("/proc/[0-9]*/status")
	k.must(err)
	for _, f := range files {
		pid := filepath.Base(filepath.Dir(f))
		cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		status, _ := os.ReadFile(f)
		if strings.HasPrefix(string(cmdline), "cri-sandbox-gofer/"+id) {
			gofer = pid
		}
		if strings.Contains(string(status), "\nPPid:\t"+sentry+"\n") {
			stubs = append(stubs, pid)
		}
	}
	if gofer == "" || len(stubs) == 0 {
		k.Fatalf("gofer %q, stubs %v", gofer, stubs)
	}
	return sentry, gofer, stubs
}

// confined checks the credentials and the namespaces of a process; shared are the
// namespaces that it may have in common with the node.
func confined(k kit, who, pid string, caps uint64, shared []string) {
	k.Helper()
	status := readFile(k, "/proc/"+pid+"/status")
	withinCaps(k, who, status, caps)
	filtered(k, who, status)
	if groups := field(status, "Groups"); groups != "" {
		k.Errorf("the %s is in the groups %s", who, groups)
	}
	if env := readFile(k, "/proc/"+pid+"/environ"); env != "" {
		k.Errorf("the %s has the environment %q", who, env)
	}
	for _, ns := range []string{"pid", "ipc", "uts", "mnt", "user", "net", "cgroup", "time"} {
		theirs, err := os.Readlink("/proc/" + pid + "/ns/" + ns)
		k.must(err)
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		k.must(err)
		if theirs == ours && !slices.Contains(shared, ns) {
			k.Errorf("the %s is in the node's %s namespace", who, ns)
		}
	}
	if limit := limitOf(k, pid, "Max core file size"); limit != "0 0" {
		k.Errorf("the %s may leave a core file with the memory of containers: %s", who, limit)
	}
}

// withinCaps compares all sets: nothing can be regained.
func withinCaps(k kit, who, status string, want uint64) {
	k.Helper()
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		got, err := strconv.ParseUint(field(status, set), 16, 64)
		k.must(err)
		if more := got &^ want; more != 0 {
			k.Errorf("the %s has %s %#x, which is %#x too much", who, set, got, more)
		}
	}
}

func filtered(k kit, who, status string) {
	k.Helper()
	if field(status, "NoNewPrivs") != "1" || field(status, "Seccomp") != "2" {
		k.Errorf("the %s has NoNewPrivs %s, Seccomp %s", who, field(status, "NoNewPrivs"), field(status, "Seccomp"))
	}
}

// field returns the value of a line of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// limitOf returns the soft and the hard limit.
func limitOf(k kit, pid, name string) string {
	k.Helper()
	for line := range strings.Lines(readFile(k, "/proc/"+pid+"/limits")) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Join(strings.Fields(rest)[:2], " ")
		}
	}
	return ""
}

// mountIDs are the mounts of a process, by which its files are told from others'.
func mountIDs(k kit, pid string) []string {
	k.Helper()
	var ids []string
	for line := range strings.Lines(readFile(k, "/proc/"+pid+"/mountinfo")) {
		ids = append(ids, strings.Fields(line)[0])
	}
	return ids
}

// descriptors checks each open one: no file of the node but the container's own
// files and layer, the pod's streams, and the two files by which the Go runtime
// follows the CPU limit. What there is else is memory.
func descriptors(k kit, who, pid, pod string, mounts []string) {
	k.Helper()
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	k.must(err)
	layers := layersOf(k, pod)
	for _, fd := range fds {
		link, err := os.Readlink("/proc/" + pid + "/fd/" + fd.Name())
		if err != nil {
			continue // closed meanwhile
		}
		info, err := os.ReadFile("/proc/" + pid + "/fdinfo/" + fd.Name())
		if err != nil {
			continue
		}
		flags, err := strconv.ParseUint(field(string(info), "flags"), 8, 64)
		k.must(err)
		if link == "/" && isProc(k, pid, fd.Name()) {
			continue // the gofer reaches its open files by it
		}
		if !allowedFile(link, flags&unix.O_ACCMODE, pod) && !slices.Contains(layers, filepath.Dir(link)) && !slices.Contains(mounts, field(string(info), "mnt_id")) {
			k.Errorf("the %s has %s open as %s, flags %#o", who, link, fd.Name(), flags)
		}
	}
}

// layersOf are the directories with the layers of a pod's containers.
func layersOf(k kit, pod string) []string {
	k.Helper()
	list, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod}})
	k.must(err)
	var dirs []string
	for _, c := range list.Containers {
		dirs = append(dirs, filepath.Join(k.env.Root, "images", "rootfs", c.Id))
	}
	return dirs
}

// isProc reports whether a descriptor is of a process's own /proc/self/fd, mounted
// alone.
func isProc(k kit, pid, fd string) bool {
	k.Helper()
	path := "/proc/" + pid + "/fd/" + fd
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil || st.Type != unix.PROC_SUPER_MAGIC {
		return false
	}
	up, err := os.Stat(path + "/..")
	k.must(err)
	here, err := os.Stat(path + "/.")
	k.must(err)
	return os.SameFile(up, here)
}

func allowedFile(link string, access uint64, pod string) bool {
	switch {
	case link == "/dev/null", strings.HasPrefix(link, "pipe:"), strings.HasPrefix(link, "socket:"):
		return true
	case strings.HasPrefix(link, "anon_inode:"):
		return slices.Contains([]string{"[eventfd]", "[eventpoll]", "seccomp notify", "[io_uring]", "[pidfd]"}, strings.TrimPrefix(link, "anon_inode:"))
	case strings.HasPrefix(link, "/memfd:cri-sandbox root image"), strings.HasPrefix(link, "/memfd:cri-sandbox proc-sys"):
		return access == unix.O_RDONLY // other pods have the same
	case strings.HasPrefix(link, "/memfd:"):
		return true
	}
	within := strings.Contains(link, pod)
	switch name := filepath.Base(link); name {
	case "stdout", "stderr":
		return within && strings.Contains(link, "/streams/")
	case "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max":
		return within && access == unix.O_RDONLY
	}
	return false
}

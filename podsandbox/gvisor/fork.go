package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// donation collects what a child is born with: its descriptors, whose numbers
// follow from the order of the calls, and the flags that name them.
type donation struct {
	args  []string
	files []*os.File
	given []*os.File
}

func newDonation(null *os.File) *donation {
	// 0, 1 and 2 of the child.
	return &donation{files: []*os.File{null, null, null}}
}

// flag adds arguments that carry no descriptor.
func (d *donation) flag(args ...string) { d.args = append(d.args, args...) }

// lend passes a file that stays open here.
func (d *donation) lend(name string, files ...*os.File) {
	for _, f := range files {
		d.flag("--" + name + "=" + strconv.Itoa(len(d.files)))
		d.files = append(d.files, f)
	}
}

// give passes a file whose copy here is closed by close, right after the fork:
// only then the end of the child is seen as the end of a pipe or a socket.
func (d *donation) give(name string, files ...*os.File) {
	d.lend(name, files...)
	d.given = append(d.given, files...)
}

// close closes what was given. It may be called more than once.
func (d *donation) close() {
	for _, f := range d.given {
		f.Close()
	}
	d.given = nil
}

// spawnConfig is how a child is forked.
type spawnConfig struct {
	program string
	argv0   string
	id      string // last argument
	netns   *os.File
	cgroups []string
	oom     *int
	// hostUser keeps the child in the initial user namespace.
	hostUser bool
	// ids is the mapping of its own one; the zero value maps all ids to themselves.
	ids idmap.Mapping
}

// fork starts the staged program. The child has its own pid, ipc, uts and mount
// namespaces, an empty environment and a session of its own, and outlives the
// daemon. The donation is closed in any case.
func (b spawnConfig) fork(d *donation) (*process, error) {
	defer d.close()
	// What is only lent may be closed by its owner at any time, as the ring is at the
	// end of the sandbox.
	copies, err := copyFDs(d.files)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", b.argv0, err)
	}
	defer copies.close()
	fds := make([]uintptr, len(copies))
	for i, fd := range copies {
		fds[i] = uintptr(fd)
	}
	pidfd := -1
	attr := &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		PidFD:      &pidfd,
	}
	if !b.hostUser {
		ids := b.ids
		if ids.IsZero() {
			// All ids, mapped to themselves: the child is root over nothing but its
			// own namespaces, yet serves files of any owner.
			ids = idmap.Identity()
		}
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings, attr.GidMappings = ids.SysProc()
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	}
	cgroups := b.cgroups
	if isUnifiedCgroup(cgroups) {
		dir, err := unix.Open(cgroups[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open cgroup %s: %w", cgroups[0], err)
		}
		defer unix.Close(dir)
		attr.UseCgroupFD, attr.CgroupFD = true, dir
		cgroups = nil
	}
	argv := append([]string{b.argv0}, d.args...)
	argv = append(argv, b.id)

	directory, program, err := throughDirectory(b.program, fds)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", b.argv0, err)
	}
	defer directory.Close()
	var pid int
	err = onThrowawayThread(func() error {
		if err := joinCgroups(cgroups); err != nil {
			return err
		}
		if b.netns != nil {
			if err := joinNetNS(b.netns); err != nil {
				return err
			}
		}
		var err error
		pid, err = syscall.ForkExec(program, argv, &syscall.ProcAttr{Dir: "/", Files: fds, Sys: attr})
		return err
	})
	runtime.KeepAlive(directory)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", b.argv0, err)
	}
	return b.adjust(pid, pidfd)
}

// throughDirectory opens the directory of a program that a child with the given descriptors
// is to become, and returns the path by which the child finds the program there. Only
// root may walk to that directory, which the child of a pod with a user namespace is not
// any more.
//
// The descriptor ends with the exec. Its number is above those that syscall.ForkExec
// uses in the child: the ones up to the highest given, and one more for each that it
// moves there, and for its pipe.
func throughDirectory(program string, fds []uintptr) (directory *os.File, path string, err error) {
	dir, name := filepath.Split(program)
	low, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(low)
	const spare = 8
	above := len(fds) + int(slices.Max(fds)) + spare
	fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, above)
	if err != nil {
		return nil, "", fmt.Errorf("open directory of program: %w", err)
	}
	return os.NewFile(uintptr(fd), dir), fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), nil
}

// adjust finishes a fresh child.
func (b spawnConfig) adjust(pid, pidfd int) (*process, error) {
	if pidfd < 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return nil, errors.New("start process: the kernel gave no pidfd; Linux 5.4 or newer is needed")
	}
	_ = unix.SetNonblock(pidfd, true) // lets the runtime's poller watch it
	start, err := prepareChild(pid, b.oom)
	if err != nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Close(pidfd)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return nil, fmt.Errorf("start %s: %w", b.argv0, err)
	}
	return newProcess(pid, start, os.NewFile(uintptr(pidfd), "pidfd"), true), nil
}

// prepareChild is a variable for the test of its failure.
var prepareChild = setUpChild

// setUpChild returns the start time of a child and gives it its limits. Its pid names
// it, as nobody has waited for it yet.
func setUpChild(pid int, oom *int) (start uint64, err error) {
	dir, err := openProcDir(pid)
	if err != nil {
		return 0, err
	}
	defer dir.close()
	if start, err = dir.start(); err != nil {
		return 0, err
	}
	// The Sentry's rings and memory files may need more locked memory than the
	// daemon's limit; without the right to raise it, it does with less.
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &unlimited, nil)
	// A core file would hold the memory of all containers; of the limits that they
	// see this is none.
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	if oom != nil {
		_ = dir.setOOMScoreAdj(*oom)
	}
	return start, nil
}

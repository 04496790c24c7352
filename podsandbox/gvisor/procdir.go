package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// procDir is /proc/PID as an open directory. What is read in it is of the process that
// had the pid when it was opened, or an error that isGone reports: never of another
// process that was given the pid later.
type procDir struct {
	pid int
	dir *os.File
}

func openProcDir(pid int) (*procDir, error) {
	path := "/proc/" + strconv.Itoa(pid)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &procDir{pid: pid, dir: os.NewFile(uintptr(fd), path)}, nil
}

func (d *procDir) close() { d.dir.Close() }

// isGone reports an error of a procDir, or of a pidfd, that says that the process has
// ended. Of a single file it may say that the process has none of the kind.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrClosed)
}

// isShortage reports an error that tells nothing of what was asked for: this daemon, or
// the node, is out of something.
func isShortage(err error) bool {
	for _, errno := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EIO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// open opens a file in the directory.
func (d *procDir) open(name string, flags int) (*os.File, error) {
	path := d.dir.Name() + "/" + name
	var fd int
	err := control(d.dir, func(dir int) (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// read reads at most so many bytes.
func (d *procDir) read(name string, most int64) ([]byte, error) {
	f, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

func (d *procDir) write(name, text string) error {
	f, err := d.open(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// stat is that of a file, or of what it leads to.
func (d *procDir) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := control(d.dir, func(dir int) error { return unix.Fstatat(dir, name, &st, 0) })
	if err != nil {
		return st, &os.PathError{Op: "stat", Path: d.dir.Name() + "/" + name, Err: err}
	}
	return st, nil
}

// executable is the program that the process runs.
func (d *procDir) executable() (fileID, error) {
	st, err := d.stat("exe")
	return fileID{st.Dev, st.Ino}, err
}

// executablePath is its path, as this daemon would have to go.
func (d *procDir) executablePath() (string, error) {
	path := make([]byte, unix.PathMax)
	var n int
	err := control(d.dir, func(dir int) (err error) {
		n, err = unix.Readlinkat(dir, "exe", path)
		return err
	})
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: d.dir.Name() + "/exe", Err: err}
	}
	return string(path[:n]), nil
}

// start reads field 22 of /proc/PID/stat, in clock ticks since boot.
func (d *procDir) start() (uint64, error) {
	b, err := d.read("stat", 4096)
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	// The second field is the name in parentheses, which may hold anything.
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read start time: unexpected form of %s/stat", d.dir.Name())
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// args is the command line of the process, at least one word.
func (d *procDir) args() ([]string, error) {
	// Of its own memory, and as long as it likes. Those of this package have some
	// hundred bytes, and a list of flags for the mounts.
	cmdline, err := d.read("cmdline", 1<<20)
	return strings.Split(string(bytes.TrimSuffix(cmdline, []byte{0})), "\x00"), err
}

// cgroups are the elements of the cgroup paths of the process; cgroups(7).
func (d *procDir) cgroups() ([]string, error) {
	b, err := d.read("cgroup", 1<<20)
	if err != nil {
		return nil, err
	}
	var elements []string
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			elements = append(elements, strings.Split(fields[2], "/")...)
		}
	}
	return elements, nil
}

// isFirst reports whether the process is the first one of a pid namespace.
func (d *procDir) isFirst() (bool, error) {
	b, err := d.read("status", 1<<20)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if numbers, is := strings.CutPrefix(line, "NSpid:"); is {
			fields := strings.Fields(numbers)
			return len(fields) > 1 && fields[len(fields)-1] == "1", nil
		}
	}
	return false, nil
}

// madeByRoot reports whether the user namespace of the process is the node's or was
// made by the node's root, and the process is root there.
func (d *procDir) madeByRoot() (bool, error) {
	ns, err := d.open("ns/user", unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	own, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return false, err
	}
	theirs, err := ns.Stat()
	if err != nil {
		return false, err
	}
	if os.SameFile(own, theirs) {
		st, err := d.dir.Stat()
		return err == nil && st.Sys().(*syscall.Stat_t).Uid == 0, err
	}
	owner := uint32(1)
	err = control(ns, func(fd int) (err error) {
		owner, err = unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
		return err
	})
	return err == nil && owner == 0, err
}

// setOOMScoreAdj sets the score, or the nearest one that the daemon may set:
// without CAP_SYS_RESOURCE it cannot go below its own.
func (d *procDir) setOOMScoreAdj(score int) error {
	const file = "oom_score_adj"
	err := d.write(file, strconv.Itoa(score))
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	own, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		return err
	}
	return d.write(file, string(bytes.TrimSpace(own)))
}

// eachProcess calls f with the directory of every process of the node. Of its errors
// those count that leave a process unknown for a want of this daemon's. One that has
// ended meanwhile, or that not even root may look at, is none of a sandbox.
func eachProcess(f func(d *procDir) error) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs error
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		d, err := openProcDir(pid)
		if err == nil {
			err = f(d)
			d.close()
		}
		if isShortage(err) {
			errs = errors.Join(errs, fmt.Errorf("look at process %d: %w", pid, err))
		}
	}
	return errs
}

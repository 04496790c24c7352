// Program does with files what applications that share a volume do. Its arguments are
// pairs of what to do and a path, see use. It prints a line for each thing done, with its
// result or error.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	for args := os.Args[1:]; len(args) > 1; args = args[2:] {
		done, err := use(args[0], args[1])
		if err != nil {
			done = err.Error()
		}
		fmt.Printf("%s %s: %s\n", args[0], args[1], done)
	}
}

// held keeps files open, with their locks, and mapped.
var held []any

// use does one thing; "sleep" is for good.
func use(what, path string) (string, error) {
	open := func(flags int) (*os.File, error) {
		f, err := os.OpenFile(path, flags, 0o666)
		held = append(held, f)
		return f, err
	}
	lock := func(kind int16) (string, error) {
		f, err := open(os.O_RDWR | os.O_CREATE)
		if err != nil {
			return "", err
		}
		return "held", unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: kind})
	}
	switch what {
	case "sleep":
		time.Sleep(time.Hour)
		return "", nil
	case "listen":
		l, err := net.Listen("unix", path)
		if err != nil {
			return "", err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "hello")
				c.Close()
			}
		}()
		return "bound", nil
	case "dial":
		c, err := net.Dial("unix", path)
		if err != nil {
			return "", err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line), err
	case "flock":
		f, err := open(os.O_RDWR | os.O_CREATE)
		if err != nil {
			return "", err
		}
		return "held", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	case "fcntl":
		return lock(unix.F_WRLCK)
	case "append":
		f, err := open(os.O_WRONLY | os.O_CREATE | os.O_APPEND)
		if err != nil {
			return "", err
		}
		for i := range 2000 {
			if _, err := fmt.Fprintf(f, "line %d\n", i); err != nil {
				return "", err
			}
		}
		return "2000 lines", nil
	case "lines":
		b, err := os.ReadFile(path)
		return strconv.Itoa(strings.Count(string(b), "\n")), err
	case "watch":
		return watch(path)
	case "make":
		return "made", os.WriteFile(path, []byte("made"), 0o666)
	case "read":
		b, err := os.ReadFile(path)
		return string(b), err
	case "await":
		for range 3000 {
			if _, err := os.Stat(path); err == nil {
				return "there", nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return "", os.ErrDeadlineExceeded
	case "rename":
		return "moved", os.Rename(path, path+".moved")
	case "map":
		f, err := open(os.O_RDWR | os.O_CREATE)
		if err != nil {
			return "", err
		}
		if err := f.Truncate(4096); err != nil {
			return "", err
		}
		m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return "", err
		}
		held = append(held, m)
		m[0]++
		return strconv.Itoa(int(m[0])), nil
	case "filesystem":
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		return fmt.Sprintf("%#x flags %#x", st.Type, st.Flags&0xf), err
	}
	return pipe(what, path)
}

// pipe does one thing with a FIFO, or with what a path names.
func pipe(what, path string) (string, error) {
	switch what {
	case "mkfifo":
		return "made", unix.Mkfifo(path, 0o666)
	case "send":
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		_, err = io.WriteString(f, "through the pipe")
		return "sent", err
	case "list":
		entries, err := os.ReadDir(path)
		return strconv.Itoa(len(entries)), err
	case "link": // to where other volumes in memory are
		return "made", os.Symlink("/dev/.volumes/other", path)
	case "seize":
		return seize(path)
	case "remount":
		return "remounted", unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND, "")
	case "bind":
		to := os.TempDir()
		if err := unix.Mount(path, to, "", unix.MS_BIND, ""); err != nil {
			return "", err
		}
		if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
			return "", fmt.Errorf("remount: %w", err)
		}
		return "remounted", os.WriteFile(filepath.Join(to, "seized"), nil, 0o666)
	case "owner":
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777), err
	case "receive":
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(f)
		return string(b), err
	}
	return "", fmt.Errorf("no such thing to do")
}

// seize tries to write to a volume from a user namespace of its own, where it may mount.
func seize(path string) (string, error) {
	cmd := exec.Command("/proc/self/exe", "bind", path, "remount", path, "make", filepath.Join(path, "seized"))
	// Without a mapping, which not everybody may write: it is root nowhere, and keeps
	// its capabilities as ambient ones.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		AmbientCaps: []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_SYS_ADMIN},
	}
	out, err := cmd.CombinedOutput()
	fmt.Print(string(out))
	return "tried", err
}

// watch says what is made in a directory next.
func watch(path string) (string, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CREATE); err != nil {
		return "", err
	}
	fmt.Println("watching")
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(string(buf[unix.SizeofInotifyEvent:n]), "\x00")
	return name, nil
}

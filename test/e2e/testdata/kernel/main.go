// Command kernel tries calls that a sandbox's kernel has only in part, and prints what
// each answers. Its arguments are directories of the file systems to try them in.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	for _, dir := range os.Args[1:] {
		files(dir)
	}
	socket("socket AF_NETLINK NETLINK_ROUTE", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	socket("socket AF_NETLINK NETLINK_NETFILTER", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	socket("socket AF_NETLINK NETLINK_SOCK_DIAG", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	var params [120]byte // struct io_uring_params
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params)), 0)
	say("io_uring_setup", errnoOf(errno))
	watch(os.Args[1])
}

func say(what string, err error) {
	answer := "works"
	if errno, ok := err.(unix.Errno); ok {
		answer = unix.ErrnoName(errno)
	} else if err != nil {
		answer = err.Error()
	}
	fmt.Printf("%s: %s\n", what, answer)
}

func errnoOf(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func files(dir string) {
	path := filepath.Join(dir, "allocated")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o644)
	if err != nil {
		say(path, err)
		return
	}
	for _, m := range []struct {
		name string
		mode uint32
	}{
		{"0", 0}, {"KEEP_SIZE", unix.FALLOC_FL_KEEP_SIZE}, {"PUNCH_HOLE", unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE},
		{"ZERO_RANGE", unix.FALLOC_FL_ZERO_RANGE}, {"COLLAPSE_RANGE", unix.FALLOC_FL_COLLAPSE_RANGE},
	} {
		say(fmt.Sprintf("fallocate %s in %s", m.name, dir), unix.Fallocate(fd, m.mode, 0, 1<<16))
	}
	_, err = unix.Getxattr(path, "system.posix_acl_access", make([]byte, 100))
	say("getxattr of an ACL in "+dir, err)
	_, err = unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	say("O_TMPFILE in "+dir, err)
}

func socket(name string, domain, kind, protocol int) {
	fd, err := unix.Socket(domain, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	say(name, err)
}

// watch prints what inotify tells of a directory while the node writes to it, until the
// file "end" is there.
func watch(dir string) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MODIFY)
	}
	say("inotify", err)
	fmt.Println("watching")
	for {
		if _, err := os.Stat(filepath.Join(dir, "end")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	say(fmt.Sprintf("events of the node: %d bytes", max(n, 0)), err)
	if err := os.WriteFile(filepath.Join(dir, "own"), []byte("x"), 0o644); err != nil {
		say("write", err)
	}
	n, err = unix.Read(fd, buf)
	say(fmt.Sprintf("own events: %t", n > 0), err)
}

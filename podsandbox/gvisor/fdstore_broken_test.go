package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// These tests do to an fd store what a sandbox process can do that has been taken
// over, with its own copies of both ends.

func testFDStore(t *testing.T) (k *fdStore, in, hold int) {
	t.Helper()
	k, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	ends := [2]int{}
	for i, f := range []*os.File{k.in, k.hold} {
		fds, err := copyFDs([]*os.File{f})
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = fds[0]
		t.Cleanup(func() { unix.Close(fds[0]) })
	}
	return k, ends[0], ends[1]
}

// allReturn calls everything that a store has and wants an error of each call.
func allReturn(t *testing.T, k *fdStore, want error) {
	t.Helper()
	_, f := fifoWith(t, "x")
	defer f.Close()
	for name, call := range map[string]func() error{
		"keep": func() error { return k.keep("c", []*os.File{f}) },
		"drop": func() error { return k.drop(heldBy("c")) },
		"find": func() error { _, err := k.find("c"); return err },
	} {
		done := make(chan error, 1)
		go func() { done <- call() }()
		select {
		case err := <-done:
			if !errdefs.IsUnavailable(err) || !errors.Is(err, want) {
				t.Errorf("%s: %v, want Unavailable and %v", name, err, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s hangs", name)
		}
	}
}

func TestFDStoreThatIsFullHoldsNobodyUp(t *testing.T) {
	k, in, hold := testFDStore(t)
	for n := 0; ; n++ {
		if err := unix.Sendmsg(in, []byte("junk"), nil, nil, unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil || n > 1<<20 {
			t.Fatal(n, err)
		}
	}
	// Both ends are the same open files as the daemon's.
	for _, fd := range []int{in, hold} {
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
	}
	allReturn(t, k, unix.EAGAIN)
}

func TestFDStoreThatIsShutHoldsNobodyUp(t *testing.T) {
	for name, shut := range map[string]func(in, hold int) error{
		"its sending end":   func(in, _ int) error { return unix.Shutdown(in, unix.SHUT_RDWR) },
		"its receiving end": func(_, hold int) error { return unix.Shutdown(hold, unix.SHUT_RDWR) },
	} {
		t.Run(name, func(t *testing.T) {
			k, in, hold := testFDStore(t)
			if err := shut(in, hold); err != nil {
				t.Fatal(err)
			}
			allReturn(t, k, unix.EPIPE)
		})
	}
}

// A turn that finds no mark, because each is stolen and the queue is filled again,
// ends.
func TestFDStoreTurnIsBounded(t *testing.T) {
	k, in, hold := testFDStore(t)
	_, f := fifoWith(t, "x")
	if err := k.keep("c", []*os.File{f}); err != nil {
		t.Fatal(err)
	}
	looks := 0
	steal := func(string, []int) bool {
		looks++
		for {
			if _, _, _, _, err := unix.Recvmsg(hold, make([]byte, 64), nil, unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
		for range 2 {
			_ = unix.Sendmsg(in, []byte("c"), unix.UnixRights(int(f.Fd())), nil, unix.MSG_DONTWAIT)
		}
		return true
	}
	done := make(chan error, 1)
	go func() { done <- k.turn(steal) }()
	select {
	case err := <-done:
		if !errdefs.IsUnavailable(err) || errors.Is(err, errFDStoreLost) || looks > maxTurn {
			t.Errorf("%v after %d messages", err, looks)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the turn does not end")
	}
}

// What no daemon sends is dropped, is never given out, and leaves no descriptor;
// what one sent stays.
func TestFDStoreDropsWhatIsNotItsOwn(t *testing.T) {
	k, in, hold := testFDStore(t)
	path, kept := fifoWith(t, "words")
	if err := k.keep("mine/input", []*os.File{kept}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	regular, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	pathOnly, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	tty, slave := openTestTerminal(t)
	socket, other, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	fifo := int(kept.Fd())
	many := make([]int, 200)
	for i := range many {
		many[i] = fifo
	}
	junk := map[string][]int{
		"regular": {int(regular.Fd())}, "directory": {dirFD(t, dir)}, "socket": {int(socket.Fd())}, "path": {pathOnly}, "zero": {int(zero.Fd())},
		"slave": {int(slave.Fd())}, "both": {fifo, int(regular.Fd())}, "three": {fifo, fifo, fifo}, "many": many, "none": nil, "": {fifo},
		"with\nline": {fifo}, "with space": {fifo}, "ünicode": {fifo}, markPrefix + "mark": {fifo}, strings.Repeat("x", maxFDStoreName+1): {fifo},
	}
	if err := unix.SetsockoptInt(hold, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	for name, fds := range junk {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		if err := unix.Sendmsg(in, []byte(name), rights, nil, unix.MSG_DONTWAIT); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := k.keep("terminal", []*os.File{tty}); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for name := range junk {
		if f, err := k.find(name); !errdefs.IsNotFound(err) {
			t.Errorf("%q was found: %v, %v", name, f, err)
		}
	}
	for _, name := range []string{"mine/input", "terminal"} {
		f, err := k.find(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.Close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	closeAll([]*os.File{kept, regular, zero, slave, tty, socket, other})
	if got := inFIFO(t, path); got != "words" {
		t.Errorf("what is kept holds %q", got)
	}
}

// With this option the kernel adds a descriptor to each message.
func TestFDStoreClosesPidfdsOfTheSender(t *testing.T) {
	k, _, hold := testFDStore(t)
	const passPidfd = 76 // SO_PASSPIDFD
	if err := unix.SetsockoptInt(hold, unix.SOL_SOCKET, passPidfd, 1); err != nil {
		t.Skip("needs Linux 6.5: ", err)
	}
	before := descriptors(t)
	for range 10 {
		_ = k.drop(heldBy("c"))
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The kernel holds the lock of a queue while somebody receives into memory that
// does not come; not to wait for messages is no help then.
func TestFDStoreThatCannotBeReachedHoldsNobodyUp(t *testing.T) {
	k, _, hold := testFDStore(t)
	memory, release := memoryThatDoesNotCome(t)
	_, f := fifoWith(t, "x")
	defer f.Close()
	if err := k.keep("c", []*os.File{f}); err != nil {
		t.Fatal(err)
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		_, _, _ = unix.Syscall6(unix.SYS_RECVFROM, uintptr(hold), memory, 100, 0, 0, 0)
	}()
	time.Sleep(100 * time.Millisecond) // until it waits for the memory
	done := make(chan error, 1)
	go func() { done <- k.drop(heldBy("c")) }()
	select {
	case err := <-done:
		if !errdefs.IsUnavailable(err) {
			t.Errorf("drop: %v, want Unavailable", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("drop hangs")
	}
	allReturn(t, k, errFDStoreLost)
	closed := make(chan struct{})
	go func() { defer close(closed); k.close() }()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("close hangs")
	}
	release()
	<-received
}

// Without a free descriptor nothing that is kept is lost.
func TestFDStoreLosesNothingWithoutDescriptors(t *testing.T) {
	k, _, _ := testFDStore(t)
	path, f := fifoWith(t, "words")
	if err := k.keep("c", []*os.File{f}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	withoutDescriptors(t, func() {
		if err := k.drop(heldBy("other")); !errdefs.IsResourceExhausted(err) {
			t.Errorf("drop: %v, want ResourceExhausted", err)
		}
	})
	if err := k.drop(heldBy("other")); err != nil {
		t.Error(err)
	}
	if got := inFIFO(t, path); got != "words" {
		t.Errorf("what is kept holds %q", got)
	}
}

// withoutDescriptors lets the process open none meanwhile.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	withDescriptors(t, 0, f)
}

// withDescriptors lets the process open few meanwhile.
func withDescriptors(t *testing.T, few int, f func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(low) // the lowest that is free
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(low + few), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

func dirFD(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func openTestTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// memoryThatDoesNotCome returns a page that the kernel waits for until release.
func memoryThatDoesNotCome(t *testing.T) (page uintptr, release func()) {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		t.Skip("needs userfaultfd(2): ", errno)
	}
	mapping, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	page = uintptr(unsafe.Pointer(&mapping[0]))
	api := [3]uint64{0xaa, 0, 0}                                        // struct uffdio_api
	register := [4]uint64{uint64(page), uint64(os.Getpagesize()), 1, 0} // struct uffdio_register, for missing pages
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, 0xc018aa3f, uintptr(unsafe.Pointer(&api))); errno != 0 {
		t.Fatal("UFFDIO_API: ", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, 0xc020aa00, uintptr(unsafe.Pointer(&register))); errno != 0 {
		t.Fatal("UFFDIO_REGISTER: ", errno)
	}
	return page, func() { unix.Close(int(fd)); _ = unix.Munmap(mapping) }
}

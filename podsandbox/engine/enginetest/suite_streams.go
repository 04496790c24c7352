package enginetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// terminal opens a pseudo-terminal.
func (b bench) terminal() (master, slave *os.File) {
	b.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	b.must(err)
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	b.Cleanup(func() { master.Close() })
	b.must(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	b.must(err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	b.must(err)
	b.Cleanup(func() { slave.Close() })
	b.must(master.SetReadDeadline(time.Now().Add(patience)))
	return master, slave
}

// prints reads as much as is wanted.
func (b bench) prints(r io.Reader, want string) {
	b.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		b.Errorf("printed %q (%v), want %q", got, err, want)
	}
}

// silent checks that a pipe has another writer and nothing to read.
func (b bench) silent(r *os.File) {
	b.Helper()
	b.must(r.SetReadDeadline(time.Now().Add(50 * time.Millisecond)))
	defer func() { b.must(r.SetReadDeadline(time.Now().Add(patience))) }()
	if n, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		b.Errorf("read %d bytes and %v, want an open end with nothing in it", n, err)
	}
}

func (b bench) ends(r *os.File) {
	b.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		b.Errorf("read %q and %v, want the end", rest, err)
	}
}

// testStreams: the caller's descriptors stay its own, and the sandbox keeps
// stdout and stderr open until Destroy.
func testStreams(b bench) {
	n := b.sandbox()
	c := b.container("echo hello; exit 0")
	r, w := b.pipe()
	c.Stdio[1], c.Stdio[2] = w, w
	n.startThis(c)
	if _, err := w.WriteString("mine\n"); err != nil {
		b.Errorf("the caller's descriptor was closed: %v", err)
	}
	w.Close()
	n.wait(c)
	lines := map[string]bool{}
	in := bufio.NewReader(r)
	for range 2 { // in either order
		line, err := in.ReadString('\n')
		b.must(err)
		lines[line] = true
	}
	if !lines["hello\n"] || !lines["mine\n"] {
		b.Errorf("read %v", lines)
	}
	b.silent(r)
	b.must(n.Destroy(b.ctx(), c.ID))
	b.ends(r)
}

// testHold: what is held outlives the caller's descriptor, is given out as the
// same open file, and ends with Release or with the container.
func testHold(b bench) {
	n := b.sandbox()
	ability[engine.Holder](n)
	c := b.container(Polite)
	r1, w1 := b.pipe()
	r2, w2 := b.pipe()
	c.Hold = map[string]*os.File{"one": w1, "two": w2}
	n.startThis(c)
	n.awaitReady(c)
	w1.Close()
	w2.Close()
	b.silent(r1)

	adopted := n.adopt()
	later := ability[engine.Holder](adopted)
	f, err := later.Held(c.ID, "one")
	b.must(err)
	if _, err := f.WriteString("through it"); err != nil {
		b.Error(err)
	}
	b.prints(r1, "through it")
	b.must(later.Release(c.ID, "one"))
	b.silent(r1) // f is another descriptor
	f.Close()
	b.ends(r1)
	_, err = later.Held(c.ID, "one")
	b.is("held after release", err, errdefs.IsNotFound)
	b.must(later.Release(c.ID, "one"))

	b.silent(r2)
	b.must(adopted.Destroy(b.ctx(), c.ID))
	b.ends(r2)
	_, err = later.Held(c.ID, "two")
	b.is("held after destroy", err, errdefs.IsNotFound)
}

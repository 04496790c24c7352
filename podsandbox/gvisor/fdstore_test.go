package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// fifoWith makes a FIFO with something in it and returns its only descriptor.
func fifoWith(t *testing.T, content string) (path string, f *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f = os.NewFile(uintptr(fd), path)
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return path, f
}

// inFIFO reads what a FIFO holds.
func inFIFO(t *testing.T, path string) string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 100)
	n, err := unix.Read(fd, buf)
	if err == unix.EAGAIN {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestFDStoreHoldsWhatNobodyElseHolds(t *testing.T) {
	k, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	var paths []string
	for i := range 5 {
		path, f := fifoWith(t, fmt.Sprint("words of ", i))
		if err := k.keep(fmt.Sprint("c", i), []*os.File{f}); err != nil {
			t.Fatal(err)
		}
		f.Close()
		paths = append(paths, path)
	}
	for _, id := range []string{"c1", "c4", "unknown", "c0"} {
		if err := k.drop(heldBy(id)); err != nil {
			t.Fatal(err)
		}
	}
	for i, path := range paths {
		want := ""
		if i == 2 || i == 3 {
			want = fmt.Sprint("words of ", i)
		}
		if got := inFIFO(t, path); got != want {
			t.Errorf("FIFO %d holds %q, want %q", i, got, want)
		}
	}
}

func TestFDStoreDropsARepeatedContainer(t *testing.T) {
	k, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	path, f := fifoWith(t, "x")
	for range 3 {
		if err := k.keep("c", []*os.File{f}); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := k.drop(heldBy("c")); err != nil {
		t.Fatal(err)
	}
	if got := inFIFO(t, path); got != "" {
		t.Errorf("the FIFO still holds %q", got)
	}
}

func TestFDStoreGivesBackWhatItHolds(t *testing.T) {
	k, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	// What a daemon leaves that is killed while it turns the queue: a mark, and
	// a message twice.
	path, f := fifoWith(t, "words")
	for _, name := range []string{"a", "a", markPrefix + "old", "c/terminal"} {
		if err := k.keep(name, []*os.File{f}); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	for range 2 {
		got, err := k.find("c/terminal")
		if err != nil {
			t.Fatal(err)
		}
		got.Close()
	}
	if err := k.drop(heldBy("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := k.find("a"); !errdefs.IsNotFound(err) {
		t.Errorf("what was dropped: %v, want NotFound", err)
	}
	if err := k.drop(heldBy("c")); err != nil {
		t.Fatal(err)
	}
	if got := inFIFO(t, path); got != "" {
		t.Errorf("the FIFO still holds %q", got)
	}
}

package gvisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sandboxFile takes a descriptor from the sandbox process, which is the same open
// file as what is written to from there.
func (p *pod) sandboxFile(number int) int {
	p.t.Helper()
	pidfd, err := unix.PidfdOpen(p.Process().PID, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, number, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// A sandbox cannot fill the node's memory through what it was given to say its last
// words on, and does not fill its directory.
func TestPanicLogIsBounded(t *testing.T) {
	p := startPod(t)
	fd := p.sandboxFile(panicLogFD)
	total, chunk := 0, bytes.Repeat([]byte("\x1b[2J\n"), 1<<14)
	for {
		n, err := unix.Write(fd, chunk)
		if total += max(n, 0); err != nil || total > 64<<20 {
			break
		}
	}
	if total > panicLogSize {
		t.Errorf("%d bytes were written", total)
	}
	for _, size := range []int64{0, 2 * panicLogSize} {
		if err := unix.Ftruncate(fd, size); err == nil {
			t.Errorf("it was made %d bytes long", size)
		}
	}
	if words := p.sentry.quotePanicLog(); len(words) > 2*maxQuote || strings.Contains(words, "\x1b") {
		t.Errorf("%d bytes: %.100q", len(words), words)
	}
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Size() > panicLogKept {
			t.Errorf("%s has %d bytes, %v", entry.Name(), info.Size(), err)
		}
	}
	// No file of the directory is open for writing there.
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Process().PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, _ := os.Readlink(link); strings.HasPrefix(target, p.cfg.Dir) {
			t.Errorf("the sandbox has %s open", target)
		}
	}
}

// What a sandbox said while no daemon ran is told by the next one.
func TestPanicLogOutlivesTheDaemon(t *testing.T) {
	old := startPod(t)
	if _, err := unix.Write(old.sandboxFile(panicLogFD), []byte("said to nobody\n")); err != nil {
		t.Fatal(err)
	}
	p := old.adopt()
	if err := unix.Kill(p.Process().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if _, err := p.Wait(testContext(t), "c"); err == nil || !strings.Contains(err.Error(), "said to nobody") {
		t.Errorf("%v, want what it said", err)
	}
	path := filepath.Join(p.cfg.Dir, panicLogName)
	if b, err := os.ReadFile(path); err != nil || string(b) != "said to nobody\n" {
		t.Errorf("%s holds %q, %v", path, b, err)
	}
}

// What a sandbox has put in the place of its panic log is not read.
func TestPanicLogThatIsNone(t *testing.T) {
	r, w, err := os.Pipe() // nothing ever comes
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, f := range map[string]*os.File{"a pipe": r, "a file": tempFile(t)} {
		if isPanicLog(int(f.Fd())) {
			t.Errorf("%s is taken for one", name)
		}
	}
	log, err := newPanicLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if !isPanicLog(int(log.Fd())) {
		t.Error("one is taken for none")
	}
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

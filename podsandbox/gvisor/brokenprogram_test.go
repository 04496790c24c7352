package gvisor

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sandbox programs that do something else, by their names: this test program, as it
// is started by an engine that takes it for the real one.
const (
	failingProgram = "says-why-and-fails"
	endlessProgram = "lists-mounts-without-end"
	idleProgram    = "does-nothing"
)

// Sandbox processes of an engine whose program they are; see bootBroken.
const (
	garbageSentry = stagedPrefix + "answers-garbage"
	missingSentry = stagedPrefix + "knows-nobody"
	silentSentry  = stagedPrefix + "says-nothing"
	hastySentry   = stagedPrefix + "hangs-up"
	abruptSentry  = stagedPrefix + "hangs-up-on-a-request"
	deafSentry    = stagedPrefix + "does-not-listen"
)

// brokenProgram is the path of such a program.
func brokenProgram(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("cp", self, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// beABrokenProgram does not return in one.
func beABrokenProgram() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	switch name := filepath.Base(self); name {
	case garbageSentry, missingSentry, silentSentry, hastySentry, abruptSentry, deafSentry:
		beABrokenSentry(name)
	case failingProgram:
		fmt.Fprintln(donated("panic-log-fd"), "the reason")
		os.Exit(3)
	case endlessProgram:
		for mounts, line := donated("mounts-fd"), bytes.Repeat([]byte("y"), 1<<16); ; {
			_, _ = mounts.Write(line)
		}
	case idleProgram:
		time.Sleep(time.Hour)
		os.Exit(0)
	}
}

func beABrokenSentry(name string) {
	control := donated("controller-fd")
	if name != deafSentry {
		_ = unix.Listen(int(control.Fd()), 16)
	}
	_, _ = donated("start-sync-fd").Write([]byte{0})
	l, err := net.FileListener(control)
	for err == nil {
		var conn net.Conn
		if conn, err = l.Accept(); err != nil {
			break
		}
		switch name {
		case garbageSentry:
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte("x"))
		case missingSentry:
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(`{"success":false,"err":"container \"c\" not found"}`))
		case abruptSentry: // its first byte is there when all of it has been written
			_, _ = conn.Read(make([]byte, 1))
		case silentSentry:
			continue
		}
		conn.Close()
	}
	time.Sleep(time.Hour)
	os.Exit(0)
}

// donated is the descriptor that a flag of this program names.
func donated(flag string) *os.File {
	for _, arg := range os.Args {
		if fd, ok := strings.CutPrefix(arg, "--"+flag+"="); ok {
			n, _ := strconv.Atoi(fd)
			return os.NewFile(uintptr(n), flag)
		}
	}
	return nil
}

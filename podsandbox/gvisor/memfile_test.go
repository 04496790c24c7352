package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// cannotChange tries to change a memory file in all the ways that there are, by
// what a sandbox was given and by what it can make of it.
func cannotChange(t *testing.T, given *os.File) {
	t.Helper()
	fd, err := rawFD(given)
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		t.Fatal(err)
	}
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("it cannot be opened again, so the test proves nothing: %v", err)
	}
	defer again.Close()
	if f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR|os.O_TRUNC, 0); err == nil {
		t.Errorf("%s: was cut off as it was opened", given.Name())
		f.Close()
	}
	for name, f := range map[string]int{"as given": fd, "opened again": int(again.Fd())} {
		if _, err := unix.Pwrite(f, []byte("x"), 0); err == nil {
			t.Errorf("%s: was written, %s", given.Name(), name)
		}
		for _, size := range []int64{0, before.Size + 4096} {
			if err := unix.Ftruncate(f, size); err == nil {
				t.Errorf("%s: was made %d bytes long, %s", given.Name(), size, name)
			}
		}
		if err := unix.Fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1); err == nil {
			t.Errorf("%s: a hole was made, %s", given.Name(), name)
		}
		if m, err := unix.Mmap(f, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			t.Errorf("%s: was mapped for writing, %s", given.Name(), name)
			_ = unix.Munmap(m)
		}
		if m, err := unix.Mmap(f, 0, 1, unix.PROT_READ, unix.MAP_SHARED); err == nil {
			if unix.Mprotect(m, unix.PROT_READ|unix.PROT_WRITE) == nil {
				t.Errorf("%s: a mapping was made writable, %s", given.Name(), name)
			}
			_ = unix.Munmap(m)
		}
	}
	if _, err := unix.FcntlInt(again.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL); err == nil {
		t.Errorf("%s: more seals could be added", given.Name())
	}
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil || after.Size != before.Size {
		t.Errorf("%s: %d bytes, %d before (%v)", given.Name(), after.Size, before.Size, err)
	}
}

func TestMemoryFileIsSealed(t *testing.T) {
	for name, content := range map[string][]byte{"small": []byte("content"), "large": make([]byte, 1<<20)} {
		f, err := memoryFile(name, content)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cannotChange(t, f)
	}
}

// No sandbox can change a memory file that the daemon gave to it, or to its gofer.
func TestMemoryFilesOfSandboxesAreSealed(t *testing.T) {
	p := startPod(t)
	spec := shell(newRootfs(t), "sleep 1000")
	spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	c := p.start(spec)
	gofer := p.containers.get(c.ID).gofer.proc.pid
	seen := map[string]bool{}
	for _, pid := range []int{p.Process().PID, gofer} {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			target, _ := os.Readlink(link)
			name, ours := strings.CutPrefix(target, "/memfd:"+memoryFilePrefix)
			if !ours || strings.HasPrefix(name, panicLogName) {
				continue // the Sentry's own memory, and what it is to write to
			}
			number, err := strconv.Atoi(filepath.Base(link))
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.PidfdGetfd(pidfd, number, 0)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), name)
			cannotChange(t, f)
			f.Close()
			seen[strings.TrimSuffix(name, " (deleted)")] = true
		}
	}
	if !seen["root image"] || !seen["proc-sys"] {
		t.Errorf("seen were %v, so the test proves less", seen)
	}
	for name, f := range map[string]*os.File{"set files": p.eng.programs.setFiles, "root image": p.eng.rootImage} {
		t.Run(name, func(t *testing.T) { cannotChange(t, f) })
	}
}

package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fileID names a file whatever its path: processes of a sandbox have left the
// mount namespace in which the staged program's path holds.
type fileID struct {
	dev, ino uint64
}

func identify(path string) (fileID, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{st.Dev, st.Ino}, nil
}

func executableOf(pid int) (fileID, error) {
	return identify("/proc/" + strconv.Itoa(pid) + "/exe")
}

// stagedPrograms are the programs of this and of earlier daemons.
func (e *Engine) stagedPrograms() (map[fileID]bool, error) {
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(e.program), stagedPrefix+"*"))
	if err != nil {
		return nil, err
	}
	ids := map[fileID]bool{}
	for _, path := range paths {
		if id, err := identify(path); err == nil {
			ids[id] = true
		}
	}
	return ids, nil
}

// belongsTo reports whether a process is the boot process or a gofer of a
// sandbox: it runs a staged program, and its command line says so.
func belongsTo(pid int, programs map[fileID]bool, sandbox string) (boot, gofer bool) {
	id, err := executableOf(pid)
	if err != nil || !programs[id] {
		return false, false
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false, false
	}
	argv := strings.Split(string(bytes.TrimSuffix(cmdline, []byte{0})), "\x00")
	boot = argv[0] == bootName && argv[len(argv)-1] == sandbox
	return boot, argv[0] == goferName+"/"+sandbox
}

// eachProcess calls f with every pid of the host.
func eachProcess(f func(pid int)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			f(pid)
		}
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("list processes: %w", err)
	}
	return nil
}

package gvisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// belongsTo reports whether a process is the boot process or a gofer of a sandbox.
//
// A process can rewrite its command line, but it cannot leave the cgroup that it was
// born in. Where that is a pod's, it alone decides; elsewhere a process is one that
// runs a staged program, with a command line that says so.
func belongsTo(pid int, programs map[fileID]bool, sandbox string) bool {
	if pod := podOfCgroup(pid); pod != "" {
		return pod == sandbox
	}
	id, err := executableOf(pid)
	if err != nil || !programs[id] {
		return false
	}
	named, _ := sandboxOfArgs(argsOf(pid))
	return named == sandbox
}

// sandboxOfArgs reads the id of a sandbox from the command line of its boot process
// or of a gofer of its.
func sandboxOfArgs(argv []string) (sandbox string, gofer bool) {
	if argv[0] == bootName {
		return argv[len(argv)-1], false
	}
	sandbox, gofer = strings.CutPrefix(argv[0], goferName+"/")
	if !gofer {
		return "", false
	}
	return sandbox, true
}

// argsOf returns the command line of a process, at least one word.
func argsOf(pid int) []string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return []string{""}
	}
	defer f.Close()
	// Of its own memory, and as long as it likes. Those of this package have some
	// hundred bytes, and a list of flags for the mounts.
	cmdline, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return strings.Split(string(bytes.TrimSuffix(cmdline, []byte{0})), "\x00")
}

// podGroup is the last element of the path of a pod's cgroup; see package cgroup.
var podGroup = regexp.MustCompile(`^(?:cri-sandbox-)?([0-9a-f]{64})(?:\.scope)?$`)

// podOfCgroup returns the id of the pod whose cgroup a process is in, or "". The
// outermost element counts, as a process may make cgroups below its own. Those that
// this process is in are no pod's, but of what the daemon itself runs in.
func podOfCgroup(pid int) string {
	own := groupsOf("self")
	for _, group := range groupsOf(strconv.Itoa(pid)) {
		if m := podGroup.FindStringSubmatch(group); m != nil && !slices.Contains(own, group) {
			return m[1]
		}
	}
	return ""
}

// groupsOf returns the elements of the cgroup paths of a process; cgroups(7).
func groupsOf(pid string) []string {
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return nil
	}
	var elements []string
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			elements = append(elements, strings.Split(fields[2], "/")...)
		}
	}
	return elements
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

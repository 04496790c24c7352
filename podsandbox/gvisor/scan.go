package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// stagedPrograms are the programs of this and of earlier daemons.
func (e *Engine) stagedPrograms() (map[fileID]bool, error) {
	dir := filepath.Dir(e.program)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list sandbox programs: %w", err)
	}
	ids := map[fileID]bool{}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), stagedPrefix) {
			continue
		}
		id, err := identify(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list sandbox programs: %w", err)
		}
		ids[id] = true
	}
	return ids, nil
}

// belongsTo reports whether a process is the boot process or a gofer of a sandbox.
//
// A process can rewrite its command line, but it cannot leave the cgroup that it was
// born in. Where that is a pod's, it alone decides; elsewhere a process is one that
// runs a staged program, with a command line that says so.
func (d *procDir) belongsTo(programs map[fileID]bool, sandbox string) (bool, error) {
	pod, err := d.podOfCgroup()
	if err != nil || pod != "" {
		return err == nil && pod == sandbox, err
	}
	id, err := d.executable()
	if err != nil || !programs[id] {
		return false, err
	}
	argv, err := d.args()
	named, _ := sandboxOfArgs(argv)
	return err == nil && named == sandbox, err
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

// podGroup is the last element of the path of a pod's cgroup; see package cgroup.
var podGroup = regexp.MustCompile(`^(?:cri-sandbox-)?([0-9a-f]{64})(?:\.scope)?$`)

// podOfCgroup returns the id of the pod whose cgroup the process is in, or "". The
// outermost element counts, as a process may make cgroups below its own. Those that
// this process is in are no pod's, but of what the daemon itself runs in.
func (d *procDir) podOfCgroup() (string, error) {
	own, err := ownCgroups()
	if err != nil {
		return "", err
	}
	groups, err := d.cgroups()
	if err != nil {
		return "", err
	}
	for _, group := range groups {
		if m := podGroup.FindStringSubmatch(group); m != nil && !slices.Contains(own, group) {
			return m[1], nil
		}
	}
	return "", nil
}

func ownCgroups() ([]string, error) {
	self, err := openProcDir(os.Getpid())
	if err != nil {
		return nil, err
	}
	defer self.close()
	return self.cgroups()
}

package gvisor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Finder finds the processes of this engine's sandboxes, without an Engine.
type Finder struct{}

// Find implements engine.Finder. It finds also processes whose program's file is gone. A
// process is one when it runs a file with the name of a staged program, root of the
// node made it, and its command line names the sandbox and a directory below dir.
//
// What could not be looked at, for want of descriptors or memory, is an error beside
// what was found.
func (Finder) Find(dir string, pods map[string]bool) ([]engine.Found, error) {
	var found []engine.Found
	err := eachProcess(func(d *procDir) error {
		f, ok, err := d.sandboxProcess(dir, pods)
		if err == nil && ok {
			f.PID = d.pid
			f.StartTime, err = d.start()
			if err == nil {
				f.Kill = func(ctx context.Context) error { return killFound(ctx, f.Process) }
				found = append(found, f)
			}
		}
		return err
	})
	return found, err
}

func (d *procDir) sandboxProcess(dir string, pods map[string]bool) (f engine.Found, ok bool, err error) {
	argv, err := d.args()
	if err != nil {
		return f, false, err
	}
	var gofer bool
	f.Sandbox, gofer = sandboxOfArgs(argv)
	f.Role = "sandbox"
	if gofer {
		f.Role = "gofer"
	}
	pod, err := d.podOfCgroup()
	if err != nil {
		return f, false, err
	}
	if pod != "" {
		f.Sandbox = pod
	}
	if pods[pod] {
		first, err := d.isFirst()
		return f, first, err // what others there are ends with it
	}
	exe, err := d.executablePath()
	if err != nil || !strings.HasPrefix(filepath.Base(exe), stagedPrefix) {
		return f, false, err
	}
	ours := false
	for _, arg := range argv[1:] {
		root, is := strings.CutPrefix(arg, "--root=")
		ours = ours || is && strings.HasPrefix(root, filepath.Clean(dir)+"/")
	}
	if named, _ := sandboxOfArgs(argv); !ours || named == "" {
		return f, false, nil
	}
	made, err := d.madeByRoot()
	return f, made, err
}

// killFound ends a process and waits until it is gone.
func killFound(ctx context.Context, id engine.Process) error {
	p, err := openProcess(id)
	switch {
	case isLost(err):
		return nil
	case err != nil:
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill process %d: %w", id.PID, ctx.Err())
	}
}

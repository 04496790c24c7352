package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// sharedTemp makes a directory that is a shared mount of its own. done unmounts it.
func sharedTemp(env *testenv.Env) (dir string, done func(), err error) {
	dir = filepath.Join(env.Dir, "tmp")
	if err := os.MkdirAll(dir, 0o1777); err != nil {
		return "", nil, fmt.Errorf("make shared directory: %w", err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return "", nil, fmt.Errorf("make shared directory: %w", err)
	}
	done = func() { unix.Unmount(dir, unix.MNT_DETACH) }
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		done()
		return "", nil, fmt.Errorf("make shared directory: %w", err)
	}
	return dir, done, nil
}

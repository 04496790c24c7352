package nri

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Whoever connects to the socket can change every container: it must be root's at
// every moment. The library makes it with the mode that the umask leaves, so it is
// made in a directory of its own that is closed to others, and renamed when it has its
// mode.

func stagedSocket(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".d", "s")
}

// prepareSocket makes the directories, and refuses a socket that is in use.
func prepareSocket(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("another process listens on %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket: %w", path, errdefs.ErrFailedPrecondition)
	}
	stage := filepath.Dir(stagedSocket(path))
	if err := os.RemoveAll(stage); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if err := os.Mkdir(stage, 0o700); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	return nil
}

// publishSocket puts the socket to its place; a leftover there is replaced.
func publishSocket(path string) error {
	staged := stagedSocket(path)
	err := errors.Join(os.Chmod(staged, 0o600), os.Rename(staged, path), os.Remove(filepath.Dir(staged)))
	if err != nil {
		return fmt.Errorf("publish socket: %w", err)
	}
	return nil
}

func removeSocket(path string) { os.Remove(path) }

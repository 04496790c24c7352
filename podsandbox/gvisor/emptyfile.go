package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// emptyFile returns the file that the pod's masked files show, which it makes. It
// is the pod's own: a gofer is root over its mounts, and could write to one that
// other pods show, too.
func (t *translator) emptyFile() (string, error) { return t.podFile("empty", "") }

// podFile returns a file of that kind with other contents.
func (t *translator) podFile(name, contents string) (string, error) {
	path := filepath.Join(t.cfg.Dir, name)
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == int64(len(contents)) {
		return path, nil
	}
	next, err := os.CreateTemp(t.cfg.Dir, name)
	if err != nil {
		return "", fmt.Errorf("create %s file: %w", name, err)
	}
	_, err = next.WriteString(contents)
	if err := errors.Join(err, next.Chmod(0o444), next.Close(), os.Rename(next.Name(), path)); err != nil {
		os.Remove(next.Name())
		return "", fmt.Errorf("create %s file: %w", name, err)
	}
	return path, nil
}

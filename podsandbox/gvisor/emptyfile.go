package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
)

// emptyFile returns the file that the pod's masked files show, which it makes. It
// is the pod's own: a gofer is root over its mounts, and could write to one that
// other pods show, too.
func (s *Sandbox) emptyFile() (string, error) {
	path := filepath.Join(s.cfg.Dir, "empty")
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return "", fmt.Errorf("create empty file: %w", err)
	}
	return path, f.Close()
}

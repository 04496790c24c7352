package cdi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// maxSpec bounds a specification, in bytes.
const maxSpec = 4 << 20

// checkFiles refuses directories with a specification that the library would wait for,
// or read without end: it opens whatever has the right name. What cannot be read
// for another reason is left to it.
func checkFiles(dirs []string) error {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".json" && ext != ".yaml" {
				continue
			}
			err := regular.Check(filepath.Join(dir, e.Name()), maxSpec)
			if errors.Is(err, regular.ErrNotRegular) || errors.Is(err, regular.ErrTooLarge) {
				return fmt.Errorf("CDI specification %w; remove it: %w", err, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFolder takes a folder for this process. The lock ends with the process,
// however it ends. Children do not inherit it.
func lockFolder(dir, flag string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	// Who made the folder may have left it open. What containers run with another
	// user's rights must pass through it, and nobody has to list it.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, fmt.Errorf("close folder to others: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another daemon owns %s: stop it, or give this one another --%s", dir, flag)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

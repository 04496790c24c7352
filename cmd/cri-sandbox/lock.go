package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long a lock is waited for. A daemon that was killed while it
// started a process leaves a child that has the lock until it becomes the program.
const lockPatience = 2 * time.Second

// lockDirectory takes a directory for this process. The lock ends with the process,
// however it ends. No program that it starts inherits it.
func lockDirectory(dir, flag string) (_ *os.File, err error) {
	defer func() {
		if errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("--%s %s is on a read-only file system, where no pod can be run or removed; make it writable and start again, pods run on meanwhile: %w", flag, dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	// Who made the directory, an earlier version among them, may have left it open.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close directory to others: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for deadline := time.Now().Add(lockPatience); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another daemon owns %s: stop it, or give this one another --%s", dir, flag)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// Package record is the one place on disk for pods and containers. It owns the
// directory tree
//
//	DIR/                              0700; the caller sees to it that it is ours alone
//	├── .damaged/                     directories that could not be read, for the operator
//	└── <pod id>/
//	    ├── pod.json                  the request as sent; written once
//	    ├── status.json               PodStatus; replaced as a whole
//	    ├── status.json.new           the one before, or the beginning of the next
//	    └── <container id>/
//	        ├── container.json        the request as sent; written once
//	        ├── spec.json             the resolved OCI spec; written once
//	        ├── writes.json           where what it writes goes; written once
//	        └── status.json           ContainerStatus, and its .new, as above
//
// and the copies of it in memory. It does not know what the phases mean
// (package lifecycle) nor do anything about them (package podsandbox).
//
// An update is: copy, modify, write to disk, and only then memory; readers never
// see what a crash could take back. What is so whatever the disk says is forced:
// memory, and then the disk as soon as it can be written to. A file is
// replaced by rename, so it is whole or old after kill -9. A status changes places
// with the one before, status.json.new, whose blocks the next is written to: pods can
// be stopped and removed on a disk that is full, which may be what empties it. It is
// not synced to the platter: after a power loss every pod is dead anyhow, a status that
// is missing or torn counts as that, and the addresses of a lost record are freed by
// CNI GC.
//
// Locks, of each entry: writing is held over a change, the disk included; mu guards
// the status in memory, for as long as it takes to copy it, so that no reader waits for
// the disk. Nothing else is taken under either. All methods are safe for concurrent use.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// Version is written into every file. A reader refuses files of a later version.
const Version = 1

const (
	damagedDir    = ".damaged"
	podFile       = "pod.json"
	containerFile = "container.json"
	specFile      = "spec.json"
	writesFile    = "writes.json"
	statusFile    = "status.json"
)

// Store owns the directory of records.
type Store struct{ dir string }

// Open makes the directory where it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make record directory: %w", err)
	}
	return &Store{dir: dir}, nil
}

// entry is one directory: an immutable part that is written once, and a status.
type entry[M, S any] struct {
	dir  string
	Meta M // immutable

	// writing serialises the changes of the status. It is held over the disk, and taken
	// before mu.
	writing sync.Mutex
	// +checklocks:writing
	behind bool // the disk has an earlier status

	mu sync.Mutex
	// +checklocks:mu
	status S // changed with writing held, too
}

// Status returns a copy. It does not wait for the disk.
func (e *entry[M, S]) Status() S {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

func (e *entry[M, S]) setStatus(s S) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = s
}

// Update changes the status, on disk and then in memory. When change returns an error,
// or the disk does, nothing has changed. Slices and maps in S are replaced, never
// modified in place.
func (e *entry[M, S]) Update(change func(*S) error) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	next := e.Status()
	if err := change(&next); err != nil {
		return err
	}
	if err := replaceJSON(filepath.Join(e.dir, statusFile), next); err != nil {
		return err
	}
	e.setStatus(next)
	e.behind = false
	return nil
}

// ErrNotPersisted says that a status has changed and is not on the disk, which is at
// fault; the error that carries it says how.
var ErrNotPersisted = errors.New("the change is not on record")

// Force changes the status also when the disk cannot be written to, which is
// ErrNotPersisted then. It is for what has happened, or must happen on any disk, and
// for nothing that a daemon which reads the earlier status would not find out, or do,
// by itself. When change returns an error, nothing has changed.
func (e *entry[M, S]) Force(change func(*S) error) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	next := e.Status()
	if err := change(&next); err != nil {
		return err
	}
	e.setStatus(next)
	e.behind = true
	return e.persistLocked()
}

// Persist writes a status to the disk that is not there yet.
func (e *entry[M, S]) Persist() error {
	e.writing.Lock()
	defer e.writing.Unlock()
	return e.persistLocked()
}

// +checklocks:e.writing
func (e *entry[M, S]) persistLocked() error {
	if !e.behind {
		return nil
	}
	if err := replaceJSON(filepath.Join(e.dir, statusFile), e.Status()); err != nil {
		return fmt.Errorf("%w: %w", ErrNotPersisted, err)
	}
	e.behind = false
	return nil
}

// Delete removes the entry from disk. It is idempotent.
func (e *entry[M, S]) Delete() error {
	crashpoint.Here("before record removal")
	err := os.RemoveAll(e.dir)
	crashpoint.Here("after record removal")
	return err
}

func create[M, S any](dir, metaFile string, meta M, status S) (*entry[M, S], error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make record: %w", err)
	}
	e := &entry[M, S]{dir: dir, Meta: meta, status: status}
	err := replaceJSON(filepath.Join(dir, statusFile), status)
	if err == nil {
		err = overwrite(filepath.Join(dir, statusFile+spareSuffix), status) // takes the space
	}
	if err == nil {
		// Last: a directory without it is a creation that did not get far, and is
		// dropped by load.
		err = writeJSON(filepath.Join(dir, metaFile), meta)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return e, nil
}

// writeJSON writes a file that is written once.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write record: %w", err)
	}
	if crashpoint.Enabled {
		crashpoint.Here("before " + step(v))
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write record: %w", err)
	}
	if crashpoint.Enabled {
		crashpoint.Here("after " + step(v))
	}
	return nil
}

// spareSuffix is of the file that holds the blocks for the next status.
const spareSuffix = ".new"

// replaceJSON replaces a status as a whole, and needs no space on the disk for one
// that is no larger than one before.
func replaceJSON(path string, v any) error {
	spare := path + spareSuffix
	if err := overwrite(spare, v); err != nil {
		return err
	}
	if crashpoint.Enabled {
		crashpoint.Here("before " + step(v))
	}
	err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // the first one; a file system that cannot
		err = os.Rename(spare, path)
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if crashpoint.Enabled {
		crashpoint.Here("after " + step(v))
	}
	return nil
}

// overwrite keeps the blocks that a file has.
func overwrite(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

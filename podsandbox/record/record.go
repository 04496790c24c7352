// Package record is the one place on disk for pods and containers. It owns the
// folder tree
//
//	DIR/                              0700; the caller sees to it that it is ours alone
//	├── .damaged/                     folders that could not be read, for the operator
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
// see what a crash could take back. What is so whatever the disk says is noted:
// memory, and then the disk as soon as it can be written to (see Note). A file is
// replaced by rename, so it is whole or old after kill -9. A status changes places
// with the one before, status.json.new, whose blocks the next is written to: pods can
// be stopped and removed on a disk that is full, which may be what empties it. It is
// not synced to the platter: after a power loss every pod is dead anyhow, a status that is missing or torn counts as that, and the
// addresses of a lost record are freed by CNI GC.
//
// Locks: an entry's mutex guards its own status and is never held while another
// is taken. All methods are safe for concurrent use.
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

// Store owns the folder of records.
type Store struct{ dir string }

// Open makes the folder where it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make record folder: %w", err)
	}
	return &Store{dir: dir}, nil
}

// entry is one folder: an immutable part that is written once, and a status.
type entry[M, S any] struct {
	dir  string
	Meta M // immutable

	mu      sync.Mutex
	status  S    // guarded by mu
	unsaved bool // guarded by mu; the disk has an earlier one
}

// Status returns a copy.
func (e *entry[M, S]) Status() S {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// Update changes the status. When change returns an error, or the disk does,
// nothing has changed. Slices and maps in S are replaced, never modified in place.
func (e *entry[M, S]) Update(change func(*S) error) (S, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.status
	if err := change(&next); err != nil {
		return e.status, err
	}
	if err := replaceJSON(filepath.Join(e.dir, statusFile), next); err != nil {
		return e.status, err
	}
	e.status, e.unsaved = next, false
	return next, nil
}

// ErrUnsaved says that a status has changed and is not on the disk, which is at
// fault; the error that carries it says how.
var ErrUnsaved = errors.New("the change is not on record")

// Note changes the status also when the disk cannot be written to, which is
// ErrUnsaved then. It is for what has happened, or must happen on any disk, and for
// nothing that a daemon which reads the earlier status would not find out, or do,
// by itself. When change returns an error, nothing has changed.
func (e *entry[M, S]) Note(change func(*S) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.status
	if err := change(&next); err != nil {
		return err
	}
	e.status, e.unsaved = next, true
	return e.saveLocked()
}

// Save writes what was noted to the disk, if it is not there yet.
func (e *entry[M, S]) Save() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.saveLocked()
}

func (e *entry[M, S]) saveLocked() error {
	if !e.unsaved {
		return nil
	}
	if err := replaceJSON(filepath.Join(e.dir, statusFile), e.status); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsaved, err)
	}
	e.unsaved = false
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
		// Last: a folder without it is a creation that did not get far, and is
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

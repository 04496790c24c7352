package logs

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestOpenLogFollowsNoLinkOut: a container that can write to the log directory cannot
// make the daemon write elsewhere, by a link at the log's place or on the way to it.
func TestOpenLogFollowsNoLinkOut(t *testing.T) {
	for name, link := range map[string]string{"the directory": "sub", "a directory above": "a", "the log": "log"} {
		t.Run(name, func(t *testing.T) {
			directory, elsewhere := t.TempDir(), t.TempDir()
			paths := map[string]string{"sub": "sub/0.log", "a": "a/b/0.log", "log": "log"}
			if err := os.Symlink(elsewhere, filepath.Join(directory, link)); err != nil {
				t.Fatal(err)
			}
			f, err := openLog(directory, filepath.Join(directory, paths[link]))
			if err == nil {
				f.Close()
			}
			if !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v, want FailedPrecondition", err)
			}
			if left, _ := os.ReadDir(elsewhere); len(left) > 0 {
				t.Errorf("made %v", left)
			}
		})
	}
	directory := t.TempDir()
	f, err := openLog(directory, filepath.Join(directory, "a", "b", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestOpenLogWantsAFileOfItsOwn: neither a link to another file of the directory, which
// would get this log's lines, nor anything that is no file.
func TestOpenLogWantsAFileOfItsOwn(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a link to another log": func(path string) error { return os.Symlink("other.log", path) },
		"a link to nothing":     func(path string) error { return os.Symlink("made.log", path) },
		"a FIFO":                func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":           func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			if err := os.WriteFile(filepath.Join(directory, "other.log"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(filepath.Join(directory, "0.log")); err != nil {
				t.Fatal(err)
			}
			f, err := openLog(directory, filepath.Join(directory, "0.log"))
			if err == nil {
				f.Close()
			}
			if !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v, want FailedPrecondition", err)
			}
			if _, err := os.Lstat(filepath.Join(directory, "made.log")); err == nil {
				t.Error("made the file that the link names")
			}
		})
	}
}

// TestOpenLogThatTurnsIntoALink: looking first is not enough, the container goes on
// meanwhile.
func TestOpenLogThatTurnsIntoALink(t *testing.T) {
	directory := t.TempDir()
	log, link, other := filepath.Join(directory, "0.log"), filepath.Join(directory, "link"), filepath.Join(directory, "other.log")
	err := errors.Join(os.WriteFile(log, nil, 0o600), os.WriteFile(other, nil, 0o600), os.Symlink("other.log", link))
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, log, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	})
	defer swaps.Wait()
	defer close(stop)
	theirs, err := os.Stat(other)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		f, err := openLog(directory, log)
		if err != nil {
			continue
		}
		ours, err := f.Stat()
		f.Close()
		if err != nil || os.SameFile(ours, theirs) {
			t.Fatalf("opened %s, %v", other, err)
		}
	}
}

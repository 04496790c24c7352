package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// openLog opens the log for positioned writes, and makes it and its folders
// when absent. Not for appending: Linux ignores the offset of a positioned
// write to a file opened so. A symbolic link or a file that is not regular is
// errdefs.ErrFailedPrecondition: the folder may be visible to containers.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create log folder: %w", err)
	}
	const flags = os.O_WRONLY | os.O_CREATE | unix.O_NOFOLLOW | unix.O_NONBLOCK
	file, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return file, nil
}

// identify returns a file's identity and its size in bytes.
func identify(file *os.File) (fileID, int64, error) {
	info, err := file.Stat()
	if err != nil {
		return fileID{}, 0, fmt.Errorf("stat log: %w", err)
	}
	return idOf(info), info.Size(), nil
}

func idOf(info os.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{dev: st.Dev, ino: st.Ino}
}

// findLog opens the file with this identity: the log itself, or what the
// kubelet renamed it to, LOG.<time>. It returns nil when there is none.
func findLog(path string, id fileID) *os.File {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || idOf(info) != id {
			continue
		}
		file, err := os.OpenFile(filepath.Join(filepath.Dir(path), e.Name()), os.O_WRONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if got, _, err := identify(file); err == nil && got == id {
			return file
		}
		file.Close()
	}
	return nil
}

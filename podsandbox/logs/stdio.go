package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
)

const stdinName = "stdin"

// Stdio opens descriptors to give to the container: stdin, stdout, stderr, each
// an open file of its own, blocking, and but for stdin open for reading and
// writing. With Terminal the second is where the terminal's output is to go, and
// the third is nil. The caller closes them.
func (s *Streams) Stdio() ([3]*os.File, error) {
	var files [3]*os.File
	cu := cleanup.Make(func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	})
	defer cu.Clean()
	names := []string{stdinName, streamNames[stdout], streamNames[stderr]}
	for i, name := range names[:1+s.cfg.outputs()] {
		if name == stdinName && !s.cfg.Stdin {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return files, fmt.Errorf("open stdin: %w", err)
			}
			files[i] = null
			continue
		}
		path := filepath.Join(s.cfg.Dir, name)
		var fd int
		var err error
		if name == stdinName {
			fd, err = openStdin(path)
		} else {
			fd, err = openFIFO(path, 0)
		}
		if err != nil {
			return files, err
		}
		files[i] = os.NewFile(uintptr(fd), name)
	}
	cu.Release()
	return files, nil
}

// Remove deletes the files of a container's streams. The directory stays, and the
// log, which is the kubelet's. Files that are not there are no error.
func Remove(dir string) error {
	names := []string{
		journalName, stdinName, streamNames[stdout], streamNames[stderr],
		filepath.Base(spoolPath(dir, stdout)), filepath.Base(spoolPath(dir, stderr)),
	}
	var errs []error
	for _, name := range names {
		err := unix.Unlink(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			errs = append(errs, fmt.Errorf("remove %s: %w", filepath.Join(dir, name), err))
		}
	}
	return errors.Join(errs...)
}

package podsandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A root file system comes from an image, so nothing in it is trusted: it is
// reached through os.Root, which no symbolic link leads out of.

// makeWorkingDir creates the working directory where the image has none, as
// other runtimes do.
func makeWorkingDir(rootfs string, p *specs.Process) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	rel, err := filepath.Rel("/", filepath.Clean("/"+p.Cwd))
	if err != nil || rel == "." {
		return nil
	}
	if fi, err := root.Stat(rel); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("working directory %s is a file in the image: %w", p.Cwd, errdefs.ErrInvalidArgument)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil // an absolute link, say: the sandbox resolves it in its own root
	}
	if err := root.MkdirAll(rel, 0o755); err != nil {
		return nil // below a mount or a link; the start says so if it matters
	}
	return nil
}

// copyFromRootfs copies the folder src of a root file system to the new folder
// dst, with modes, owners and links. A src that does not exist makes dst empty.
func copyFromRootfs(rootfs, src, dst string) error {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	rel, err := filepath.Rel("/", filepath.Clean("/"+src))
	if err != nil {
		return err
	}
	from, err := root.OpenRoot(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	if err := os.CopyFS(dst, noSpecial{from.FS()}); err != nil {
		return err
	}
	return copyAttributes(from, dst)
}

// noSpecial hides what os.CopyFS cannot copy: devices, sockets, FIFOs.
type noSpecial struct{ fs.FS }

func (n noSpecial) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(n.FS, name)
	kept := all[:0]
	for _, e := range all {
		if t := e.Type(); t.IsRegular() || t.IsDir() || t&fs.ModeSymlink != 0 {
			kept = append(kept, e)
		}
	}
	return kept, err
}

func (n noSpecial) ReadLink(name string) (string, error)   { return fs.ReadLink(n.FS, name) }
func (n noSpecial) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(n.FS, name) }

// copyAttributes gives the copy the owners and modes of the original.
func copyAttributes(from *os.Root, dst string) error {
	return fs.WalkDir(noSpecial{from.FS()}, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := from.Lstat(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, path)
		if uid, gid, ok := owner(fi); ok {
			if err := os.Lchown(to, uid, gid); err != nil {
				return err
			}
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		return os.Chmod(to, fi.Mode())
	})
}

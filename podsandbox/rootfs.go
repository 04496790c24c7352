package podsandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/idmap"
)

// A root file system comes from an image, so nothing in it is trusted: it is
// reached through os.Root, which no symbolic link leads out of.

// copyFromRootfs copies the folder src of a root file system to the new folder
// dst, with modes, owners and links. A src that does not exist makes dst empty, a
// folder of the pod's root.
func copyFromRootfs(rootfs, src, dst string, ids idmap.Mapping) error {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	uid, gid, _ := ids.ToHost(0, 0)
	if err := os.Chown(dst, int(uid), int(gid)); err != nil {
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

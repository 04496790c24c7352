package image

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// removeTree removes a tree that a container may have made, and that nobody writes
// in any more. A path that does not exist is no error; after one, the rest of the
// tree is gone. Nothing is removed that is mounted in the tree.
//
// It is os.RemoveAll with a bounded number of descriptors and a bounded stack:
// that one takes a descriptor for each level, and the daemon has none left to
// serve anybody with while it removes a tree that is deep enough.
func removeTree(path string) error {
	parent, err := openRoot(filepath.Dir(path))
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	defer parent.close()
	return (&removal{}).entry(parent, filepath.Base(path))
}

// removal is in the last directory of open, the first of which is the tree's root.
type removal struct {
	open  []*directory
	moved bool // directories have come into the root
}

// entry removes an entry of a directory, with all that is in it.
func (r *removal) entry(dir *directory, name string) error {
	err := unix.Unlinkat(dir.fd, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	// Of a mount point, rmdir says that it is busy before it looks into it.
	switch busy := unix.Unlinkat(dir.fd, name, unix.AT_REMOVEDIR); busy {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTDIR:
		return err
	case unix.ENOTEMPTY, unix.EEXIST:
	default:
		return busy
	}
	if len(r.open) == maxOpen {
		return r.lift(dir, name)
	}
	sub, err := openDir(dir.fd, name)
	if err == unix.ENOENT {
		return nil // by another removal, as of all below
	} else if err != nil {
		return err
	}
	r.open = append(r.open, sub)
	err = r.empty(sub)
	r.open = r.open[:len(r.open)-1]
	sub.close()
	left := unix.Unlinkat(dir.fd, name, unix.AT_REMOVEDIR)
	if left == nil || left == unix.ENOENT {
		return nil
	}
	return cmp.Or(err, error(left))
}

// lift moves a directory from the greatest depth into the tree's root, where it is
// removed in its turn.
func (r *removal) lift(dir *directory, name string) error {
	if err := unix.Renameat(dir.fd, name, r.open[0].fd, rand.Text()); err == unix.ENOENT {
		return nil
	} else if err != nil {
		return err
	}
	r.moved = true
	return nil
}

// empty removes the entries of the current directory, and goes on after an error. The
// root is gone through again for what was moved there.
func (r *removal) empty(dir *directory) (first error) {
	for {
		r.moved = r.moved && dir != r.open[0]
		first = nil
		for {
			name, err := dir.next()
			if err == nil && name != "" {
				err = r.entry(dir, name)
			}
			if first == nil && err != nil {
				first = fmt.Errorf("%s: %w", name, err)
			}
			if name == "" {
				break
			}
		}
		if !r.moved || dir != r.open[0] {
			return first
		}
		if err := dir.seek(0); err != nil {
			return err
		}
	}
}

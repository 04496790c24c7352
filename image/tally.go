package image

import (
	"context"
	"errors"
	"io/fs"
	"math"

	"golang.org/x/sys/unix"
)

// maxClosed bounds the directories above the current one that a walk can come back to
// without a descriptor of theirs, which is 16 MiB. What lies deeper is not counted;
// a container pays a directory for each level.
const maxClosed = 1 << 20

// tally adds up disk blocks and inodes; a file with several names counts once.
type tally struct{ bytes, inodes uint64 }

func newTally() *tally { return &tally{} }

// walk adds a tree, of any depth and width, as far as it lies on one mount.
// Somebody may be changing it: what vanishes or cannot be read counts nothing, the
// whole tree included, and a directory that is moved takes with it what was not seen
// of it. Errors are the end of the context, and a daemon without descriptors or
// memory, which would count too little.
func (t *tally) walk(ctx context.Context, root string) error {
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err != nil {
		return onlyGone("lstat", root, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.addStat(&st)
		return nil
	}
	dir, err := openRoot(root)
	if err != nil {
		return onlyGone("open", root, err)
	}
	t.addStat(&dir.stat)
	w := walker{dev: dir.stat.Dev, tally: t, open: []*directory{dir}}
	defer w.end()
	return w.run(ctx)
}

// stat adds one file or directory, without what is in it.
func (t *tally) stat(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return onlyGone("lstat", path, err)
	}
	t.addStat(&st)
	return nil
}

func (t *tally) addStat(st *unix.Stat_t) {
	t.inodes++
	t.bytes += uint64(st.Blocks) * 512
}

func onlyGone(op, path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// walker is in the last directory of open. Directories deep in the tree are closed while
// it is below them; it comes back by "..", and goes on at the same entry.
type walker struct {
	dev    uint64
	tally  *tally
	open   []*directory // the root and those below it, maxOpen at most
	closed []place      // between the last two of open

	linked        linked
	bytes, inodes float64 // shares of files that linked does not remember
}

// place is how far a closed directory has been read.
type place struct {
	ino uint64
	pos int64
}

func (w *walker) run(ctx context.Context) error {
	for len(w.open) > 0 {
		dir := w.open[len(w.open)-1]
		if !dir.buffered() {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		name, err := dir.next()
		switch {
		case lacking(err):
			return err
		case err != nil || name == "":
			err = w.leave(dir)
		default:
			err = w.visit(dir, name)
		}
		if lacking(err) {
			return err
		}
	}
	return nil
}

// visit counts an entry, and goes into a directory.
func (w *walker) visit(dir *directory, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch {
	case st.Dev != w.dev: // mounted here
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.enter(dir, name)
	case st.Nlink > 1:
		w.addLinked(&st)
	default:
		w.tally.addStat(&st)
	}
	return nil
}

func (w *walker) enter(dir *directory, name string) error {
	sub, err := openDir(dir.fd, name)
	if err != nil {
		return err
	}
	w.tally.addStat(&sub.stat)
	switch {
	case len(w.open) < maxOpen:
		w.open = append(w.open, sub)
	case len(w.closed) < maxClosed:
		w.closed = append(w.closed, place{dir.stat.Ino, dir.pos})
		w.open[maxOpen-1] = sub
		dir.close()
	default:
		sub.close()
	}
	return nil
}

// leave goes back to the directory above. When the way to it is lost, because the
// current one was moved, it goes to the nearest one that is open.
func (w *walker) leave(dir *directory) error {
	defer dir.close()
	last := len(w.open) - 1
	if len(w.closed) == 0 {
		w.open = w.open[:last]
		return nil
	}
	above := w.closed[len(w.closed)-1]
	up, err := openDir(dir.fd, "..")
	if err == nil {
		if up.stat.Dev == w.dev && up.stat.Ino == above.ino && up.seek(above.pos) == nil {
			w.closed = w.closed[:len(w.closed)-1]
			w.open[last] = up
			return nil
		}
		up.close()
	}
	w.closed, w.open = w.closed[:0], w.open[:last]
	return err
}

func (w *walker) addLinked(st *unix.Stat_t) {
	switch part := w.linked.part(st.Ino, uint64(st.Nlink)); part {
	case 0:
	case 1:
		w.tally.addStat(st)
	default:
		w.inodes += part
		w.bytes += part * float64(st.Blocks*512)
	}
}

func (w *walker) end() {
	for _, dir := range w.open {
		dir.close()
	}
	w.tally.inodes += uint64(math.Round(w.inodes))
	w.tally.bytes += uint64(math.Round(w.bytes))
}

// lacking is whether an error is for want of something of the daemon's own.
func lacking(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

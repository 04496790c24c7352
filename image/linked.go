package image

// maxLinked bounds the files with several names that one walk remembers, which is
// some 3 MiB. A container can make any number of them.
const maxLinked = 1 << 16

// linked finds out for names of files with several which part of their file they
// stand for, so that each file counts once. It forgets a file with its last name.
type linked struct {
	left map[uint64]uint64 // by inode: names that were not seen yet
	full bool              // once it is, no file is added: its first names may have gone by
}

// part says what the next name of a file counts: 1 for the first, 0 for the
// others. The names of a file that is not remembered count an equal share each.
func (l *linked) part(ino, names uint64) float64 {
	if left, ok := l.left[ino]; ok {
		if left--; left == 0 {
			delete(l.left, ino)
		} else {
			l.left[ino] = left
		}
		return 0
	}
	if l.full = l.full || len(l.left) == maxLinked; l.full {
		return 1 / float64(names)
	}
	if l.left == nil {
		l.left = map[uint64]uint64{}
	}
	l.left[ino] = names - 1
	return 1
}

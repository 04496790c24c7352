package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/image"
)

// existing returns the directory, or the closest one above it that exists: the
// daemon makes the rest at its first start.
func existing(dir string) string {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	return dir
}

// directories looks at who may change what the daemon trusts.
func directories(_ context.Context, o Options) []Finding {
	var all []Finding
	for _, dir := range []string{o.Root, o.State} {
		fi, err := os.Stat(dir)
		if err != nil {
			continue // the daemon makes it
		}
		st := fi.Sys().(*syscall.Stat_t)
		switch {
		case !fi.IsDir():
			all = append(all, bad("Move it away, or configure another directory.", "%s is no directory", dir)...)
		case st.Uid != 0 || fi.Mode().Perm()&0o022 != 0:
			all = append(all, bad(fmt.Sprintf("chown root %s and chmod go-w %s.", dir, dir),
				"%s can be changed by others than root (uid %d, mode %o)", dir, st.Uid, fi.Mode().Perm())...)
		}
	}
	if len(all) == 0 {
		return good("%s and %s", o.Root, o.State)
	}
	return all
}

func overlay(_ context.Context, o Options) []Finding {
	dir := existing(o.Root)
	err := image.CheckRoot(dir)
	if errors.Is(err, unix.EROFS) { // which ext4 does not say of itself after an error
		return bad("Mount it read-write, after a check of the file system.", "%s is on a read-only file system", dir)
	}
	if err != nil {
		return bad("Put the root on ext4, or on xfs with ftype=1, load the module overlay, and run as root.", "%v", err)
	}
	return good("on the file system of %s", dir)
}

// What a node needs free to be of use, and to work at all. The state directory holds
// little, but a sandbox needs it.
const (
	rootWanted, rootNeeded   = 10 << 30, 256 << 20
	stateWanted, stateNeeded = 256 << 20, 16 << 20
	inodesWanted             = 100000
)

func space(_ context.Context, o Options) []Finding {
	var all []Finding
	for _, f := range []struct {
		dir            string
		wanted, needed uint64
	}{{o.Root, rootWanted, rootNeeded}, {o.State, stateWanted, stateNeeded}} {
		var st unix.Statfs_t
		dir := existing(f.dir)
		if err := unix.Statfs(dir, &st); err != nil {
			all = append(all, bad("Make the directory readable.", "ask for the space of %s: %v", dir, err)...)
			continue
		}
		free := st.Bavail * uint64(st.Bsize)
		message := fmt.Sprintf("%s has %d MiB free", f.dir, free>>20)
		switch {
		case st.Flags&unix.ST_RDONLY != 0:
			all = append(all, bad("Mount it read-write.", "%s is on a read-only file system", f.dir)...)
		case free < f.needed:
			all = append(all, bad("Free space there, or configure another directory.", "%s, at least %d are needed", message, f.needed>>20)...)
		case free < f.wanted:
			all = append(all, warn("Free space there, or configure another directory.", "%s, which images and logs soon fill", message)...)
		case st.Files > 0 && st.Ffree < inodesWanted && f.dir == o.Root: // btrfs counts none
			all = append(all, warn("Make the file system anew with more inodes.", "%s has %d inodes free; an image has tens of thousands of files", f.dir, st.Ffree)...)
		default:
			all = append(all, good("%s", message)...)
		}
	}
	return all
}

package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

func TestTallyOfARandomTree(t *testing.T) {
	needRoot(t) // device nodes
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		root := t.TempDir()
		dirs, files := []string{root}, []string(nil)
		for i := range 1500 {
			path := filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprint(i))
			var err error
			switch kind := r.IntN(7); {
			case kind == 0:
				err = os.Mkdir(path, 0o700)
				dirs = append(dirs, path)
			case kind == 1 && len(files) > 0:
				err = os.Link(files[r.IntN(len(files))], path)
			case kind == 2:
				err = os.Symlink(dirs[r.IntN(len(dirs))], path)
			case kind == 3:
				err = unix.Mknod(path, unix.S_IFIFO|0o600, 0)
			case kind == 4:
				if err = os.WriteFile(path, nil, 0o600); err == nil {
					err = os.Truncate(path, r.Int64N(1<<30)) // all of it a hole
				}
			default:
				err = os.WriteFile(path, make([]byte, r.IntN(20<<10)), 0o600)
				files = append(files, path)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		unix.Sync() // blocks are counted when they are given out
		if got, want := measure(t, t.Context(), root), plainTally(t, root); got != want {
			t.Errorf("seed %d: %+v, by path %+v", seed, got, want)
		}
	}
}

// A depth that no path can name hides nothing and costs no descriptors. The walk
// has to find back into each level: what is there next to the directory below.
func TestTallyOfADeepTree(t *testing.T) {
	const levels = 3000
	root := t.TempDir()
	before := openDescriptors(t)
	var most int
	var want tally
	deepTree(t, root, levels, func(at, level int) {
		fileAt(t, at, "a", 8<<10)
		fileAt(t, at, "z", 8<<10)
		if err := unix.Mkdirat(at, "side", 0o755); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		for _, name := range []string{".", "a", "z", "side"} {
			if err := unix.Fstatat(at, name, &st, 0); err != nil {
				t.Fatal(err)
			}
			want.addStat(&st)
		}
	})
	st := lstat(t, root)
	want.addStat(&st)
	ctx := watchedContext{t.Context(), func() { most = max(most, openDescriptors(t)-before) }}
	if got := measure(t, ctx, root); got != want {
		t.Errorf("%+v, made %+v", got, want)
	}
	if most > maxOpen+1 || most < maxOpen/2 {
		t.Errorf("%d descriptors while walking, at most %d are meant to be", most, maxOpen+1)
	}
	if left := openDescriptors(t) - before; left != 0 {
		t.Errorf("%d descriptors are left open", left)
	}
}

// The tree of a container is too deep for a path, and is measured and removed
// like any other.
func TestRootfsUsageOfADeepTree(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app", buildImage(t, v1.Config{}, gzipLayer(file("x", "x"))))
	target := mounted(t, s, "c", mustPull(t, s, host+"/app"))
	deepTree(t, target, 200, func(at, _ int) { fileAt(t, at, "big", 64<<10) })
	u, err := s.RootfsUsage(t.Context(), "c")
	if err != nil || u.Bytes < 200*64<<10 || u.Inodes != 1+2*200 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if err := s.UnmountRootfs(t.Context(), "c", target); err != nil {
		t.Error(err)
	}
	if found, _ := os.ReadDir(filepath.Join(s.opts.Root, "trash")); len(found) > 0 {
		t.Errorf("%d trees are left in the trash", len(found))
	}
}

// Of a directory with many entries a little is read at a time, with a look at the
// context in between.
func TestTallyOfAHugeDirectory(t *testing.T) {
	const n = 20_000
	root := t.TempDir()
	manyFiles(t, root, n)
	var looks int
	if got := measure(t, watchedContext{t.Context(), func() { looks++ }}, root); got.inodes != n+1 {
		t.Errorf("%d inodes", got.inodes)
	}
	if looks < n/1000 {
		t.Errorf("the context was looked at %d times in %d entries", looks, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sum := newTally()
	err := sum.walk(watchedContext{ctx, cancel}, root)
	if !errors.Is(err, context.Canceled) || sum.inodes > 1000 {
		t.Errorf("cancelled at once: %v after %d entries", err, sum.inodes)
	}
}

func TestTallyCountsAFileOnce(t *testing.T) {
	root := t.TempDir()
	const n, names = 500, 5
	for name := range names {
		dir := mustMkdir(t, root, fmt.Sprint(name))
		if name == 0 {
			manyFiles(t, dir, n)
			continue
		}
		for i := range n {
			if err := os.Link(filepath.Join(root, "0", fmt.Sprint(i)), filepath.Join(dir, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := measure(t, t.Context(), root); got.inodes != 1+n+names {
		t.Errorf("%d inodes for %d files and %d directories", got.inodes, n, names)
	}
}

// What is mounted in a tree is no part of it, also when it is of the same file
// system.
func TestTallyStaysOnOneMount(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	root, other := t.TempDir(), t.TempDir()
	manyFiles(t, other, 100)
	alone := measure(t, t.Context(), root)
	disk, bind, one := mustMkdir(t, root, "disk"), mustMkdir(t, root, "bind"), filepath.Join(root, "file")
	if err := os.WriteFile(one, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	manyFiles(t, disk, 100)
	if err := unix.Mount(other, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bind, unix.MNT_DETACH) })
	if err := unix.Mount(filepath.Join(disk, "0"), one, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(one, unix.MNT_DETACH) })
	if got := measure(t, t.Context(), root); got != alone {
		t.Errorf("%+v with mounts in it, %+v without", got, alone)
	}
}

// Somebody exchanges a directory and a symbolic link all the time; the walk never
// goes through the link.
func TestTallyIsNotLedOutside(t *testing.T) {
	dir := t.TempDir()
	root, sub := mustMkdir(t, dir, "root"), mustMkdir(t, dir, "root", "a")
	manyFiles(t, mustMkdir(t, dir, "outside"), 1000)
	link := filepath.Join(root, "b")
	if err := os.Symlink("../outside", link); err != nil {
		t.Fatal(err)
	}
	at, err := openRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer at.close()
	if sub, err := openDir(at.fd, "b"); err == nil {
		sub.close()
		t.Error("opened a directory through a symbolic link")
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, sub, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 5000 {
		if got := measure(t, t.Context(), root); got.inodes > 3 {
			t.Errorf("%d inodes, there are 3", got.inodes)
			break
		}
	}
	close(stop)
	<-stopped
}

// A directory above the current one is moved out of the tree: the walk does not
// follow it there, and goes on with the rest of the tree.
func TestTallyOfAMovedDirectory(t *testing.T) {
	const levels, files = 2 * maxOpen, 5
	root, outside := t.TempDir(), t.TempDir()
	manyFiles(t, root, 100)
	manyFiles(t, outside, 1000)
	moved, deepest := "", root
	for level := range levels {
		deepest = mustMkdir(t, deepest, fmt.Sprint("d", level))
		manyFiles(t, deepest, files) // so that there is more to come behind the directory below
		if level == levels*3/4 {
			moved = deepest
		}
	}
	var looks int
	ctx := watchedContext{t.Context(), func() {
		if looks++; looks == levels { // it is in the last quarter
			if err := os.Rename(moved, filepath.Join(outside, "moved")); err != nil {
				t.Error(err)
			}
		}
	}}
	// The directories from maxOpen on are closed while it is below them: what it has not
	// seen of those above the moved one is lost as well.
	got := measure(t, ctx, root)
	if least, most := 1+100+maxOpen*(1+files), 1+100+levels*(1+files); got.inodes < uint64(least) || got.inodes > uint64(most) {
		t.Errorf("%d inodes, not %d to %d", got.inodes, least, most)
	}
	if looks < levels {
		t.Errorf("the directory was not moved: %d looks at the context", looks)
	}
}

func TestTallyOfNothing(t *testing.T) {
	if got := measure(t, t.Context(), filepath.Join(t.TempDir(), "none")); got != (tally{}) {
		t.Errorf("%+v", got)
	}
}

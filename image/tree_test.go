package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// deepTree makes a chain of directories with long names in dir, too deep for any path,
// and in each of them what fill makes. It goes with the test.
func deepTree(t *testing.T, dir string, levels int, fill func(at, level int)) {
	t.Helper()
	t.Cleanup(func() {
		if err := removeTree(filepath.Join(dir, longName)); err != nil {
			t.Error(err)
		}
	})
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for level := range levels {
		if err == nil {
			err = unix.Mkdirat(at, longName, 0o755)
		}
		if err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		var below int
		below, err = unix.Openat(at, longName, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		_ = unix.Close(at)
		at = below
		if err == nil {
			fill(at, level)
		}
	}
	_ = unix.Close(at)
}

var longName = strings.Repeat("d", 200)

// fileAt makes a file of a size that takes its blocks at once.
func fileAt(t *testing.T, at int, name string, size int64) {
	t.Helper()
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if size > 0 {
		if err := unix.Fallocate(fd, 0, 0, size); err != nil {
			t.Fatal(err)
		}
	}
}

// manyFiles makes so many empty files in dir.
func manyFiles(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mustMkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// openDescriptors counts those of the process.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// watchedContext calls f whenever somebody asks it for its end.
type watchedContext struct {
	context.Context
	f func()
}

func (c watchedContext) Err() error {
	c.f()
	return c.Context.Err()
}

// measure tallies a tree.
func measure(t *testing.T, ctx context.Context, dir string) tally {
	t.Helper()
	sum := newTally()
	if err := sum.walk(ctx, dir); err != nil {
		t.Fatal(err)
	}
	return *sum
}

// plainTally is what du does: by path, and it remembers every inode.
func plainTally(t *testing.T, dir string) (sum tally) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if st := lstat(t, path); !seen[st.Ino] {
			seen[st.Ino] = true
			sum.inodes++
			sum.bytes += uint64(st.Blocks) * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

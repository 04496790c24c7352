package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWorkLeavesNothing(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "work")
	for name, work := range map[string]func() ([]row, error){
		"small": func() ([]row, error) { return smallFiles(directory, 3) },
		"large": func() ([]row, error) { return largeFile(directory, 2) },
	} {
		rows, err := work()
		if err != nil || len(rows) == 0 {
			t.Errorf("%s: %v, %v", name, rows, err)
		}
		for _, r := range rows {
			if r.Value <= 0 {
				t.Errorf("%s: %v", name, r)
			}
		}
		if _, err := os.Lstat(directory); !os.IsNotExist(err) {
			t.Errorf("%s leaves its directory: %v", name, err)
		}
	}
}

func TestFindKeepsOffMounts(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"a", "dir/b", "proc/c", "hosts"} {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	mounts := mountPoints([]byte("1 0 0:5 / " + root + " rw - 9p none rw\n2 1 0:6 / " + root + "/proc rw - proc none rw\n" +
		"3 1 0:7 / " + root + "/hosts rw - 9p none rw\nshort\n"))
	got, err := find(root, mounts)
	want := []string{filepath.Join(root, "a"), filepath.Join(root, "dir/b")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("found %q, %v", got, err)
	}
}

func TestShortFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := create(path, []byte("1234")); err != nil {
		t.Fatal(err)
	}
	if err := create(path, nil); err == nil {
		t.Error("a file is created twice")
	}
	if err := read(path, 4); err != nil {
		t.Error(err)
	}
	if err := read(path, 5); err == nil {
		t.Error("a file of 4 bytes gives 5")
	}
	if err := drain(path, make([]byte, 2), 3); err == nil {
		t.Error("a file of 4 bytes gives 6")
	}
}

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseFilework(t *testing.T) {
	got, err := parseFilework([]byte(`[{"name":"stat a file","unit":"µs","value":1.5},{"name":"write","unit":"MB/s","value":900}]` + "\n"))
	want := []result{single("stat a file", "µs", 1.5), single("write", "MB/s", 900)}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "exec format error", "{}"} {
		if got, err := parseFilework([]byte(bad)); err == nil {
			t.Errorf("%q parses as %v", bad, got)
		}
	}
}

func TestDiskUse(t *testing.T) {
	dir := t.TempDir()
	before, err := diskUse(dir)
	if err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(dir, "sparse")
	if err := os.WriteFile(sparse, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	after, err := diskUse(dir)
	if err != nil {
		t.Fatal(err)
	}
	// File systems differ in what they add; none adds the hole.
	if grown := after - before; grown < 64<<10 || grown > 1<<20 {
		t.Errorf("64 KiB and a hole take %d bytes", grown)
	}
	if _, err := diskUse(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there has a size")
	}
}

package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// topLevel is the whole top level, but for files and directories that begin with a
// dot, and build output. A new entry is a decision: it is taken here.
var topLevel = []string{
	"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
	"cmd", "cri", "docs", "go.mod", "go.sum", "hack", "image", "internal", "network", "podsandbox",
	"test",
}

// only are directories with exactly one thing in them.
var only = map[string]string{"cmd": "cri-sandbox", "test": "e2e"}

// Layout finds what is missing or new at the top level.
func Layout(root string) ([]Finding, error) {
	names, err := list(root)
	if err != nil {
		return nil, err
	}
	out := compare(".", names, topLevel)
	for dir, child := range only {
		names, err := list(filepath.Join(root, dir))
		if os.IsNotExist(err) {
			continue // reported above
		}
		if err != nil {
			return nil, err
		}
		out = append(out, compare(dir, names, []string{child})...)
	}
	return out, nil
}

func compare(dir string, got, want []string) []Finding {
	var out []Finding
	for _, n := range got {
		if !slices.Contains(want, n) {
			out = append(out, Finding{filepath.Join(dir, n), 0, "does not belong here"})
		}
	}
	for _, n := range want {
		if !slices.Contains(got, n) {
			out = append(out, Finding{filepath.Join(dir, n), 0, "is missing"})
		}
	}
	return out
}

func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !skipDir(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// machinePath matches a path that exists on one person's machine only. A home
// directory inside an image (/root, /home/app) is not meant.
var machinePath = regexp.MustCompile(`(/home/[a-z0-9_-]+|/Users/[A-Za-z0-9._-]+|/root|^|[\s"'(=:])/(go/pkg/mod|go/src|src/github|work/[a-z]+|workspace|Documents|Desktop|Downloads)\b`)

// textFiles are checked for such paths.
var textFiles = []string{".go", ".md", ".sh", ".toml", ".json", ".yaml", ".yml", ".conf", ".service", ".mod", ".txt", ".s", ".c"}

// MachinePaths finds paths of a developer's machine in sources and documents.
func MachinePaths(root string) ([]Finding, error) {
	var out []Finding
	err := walk(root, func(rel string) error {
		base := filepath.Base(rel)
		if !slices.Contains(textFiles, filepath.Ext(base)) && base != "Makefile" && base != "run" {
			return nil
		}
		lines, err := readLines(root, rel)
		if err != nil {
			return err
		}
		for i, line := range lines {
			if m := machinePath.FindString(line); m != "" {
				out = append(out, Finding{rel, i + 1, fmt.Sprintf("path of one machine: %s", strings.TrimSpace(m))})
			}
		}
		return nil
	})
	return out, err
}

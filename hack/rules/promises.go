package rules

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"strings"
)

// promisesFiles are documents with tables whose last column is headed "test": its
// cells name the tests of a promise, as `TestX`, `FuzzY` in `its/package`; several
// packages are separated by semicolons.
var promisesFiles = []string{"docs/reliability.md", "docs/security.md"}

var (
	namedTest    = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	namedPackage = regexp.MustCompile("in `([a-z0-9/-]+)`")
)

// Promises finds promises without a test, and tests that do not exist.
func Promises(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	tests := map[string]bool{}
	for _, s := range files {
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				tests[path.Join(s.dir, f.Name.Name)] = true
			}
		}
	}
	var out []Finding
	for _, file := range promisesFiles {
		lines, err := readLines(root, file)
		if err != nil {
			return nil, err
		}
		out = append(out, broken(file, lines, tests)...)
	}
	return out, nil
}

func broken(file string, lines []string, tests map[string]bool) (out []Finding) {
	promises := false // whether the table is one of promises
	for i, line := range lines {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !strings.HasPrefix(line, "|"):
			promises = false
			continue
		case last == "test":
			promises = true
			continue
		case !promises || strings.HasPrefix(last, "--"):
			continue
		}
		for part := range strings.SplitSeq(last, ";") {
			for _, text := range unkept(part, tests) {
				out = append(out, Finding{file, i + 1, text})
			}
		}
	}
	return out
}

// unkept says what is wrong with the tests that one part of a cell names.
func unkept(part string, tests map[string]bool) []string {
	names, pkg := namedTest.FindAllStringSubmatch(part, -1), namedPackage.FindStringSubmatch(part)
	if len(names) == 0 || pkg == nil {
		return []string{fmt.Sprintf("names no test and its package: %q", strings.TrimSpace(part))}
	}
	var out []string
	for _, n := range names {
		if !tests[path.Join(pkg[1], n[1])] {
			out = append(out, fmt.Sprintf("there is no %s in %s", n[1], pkg[1]))
		}
	}
	return out
}

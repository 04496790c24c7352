package rules

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// PackageComments finds packages whose files have no package comment.
func PackageComments(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	said := map[string]bool{}
	var dirs []string
	for _, s := range files {
		if s.test {
			continue
		}
		if !slices.Contains(dirs, s.dir) {
			dirs = append(dirs, s.dir)
		}
		if s.tree.Doc != nil && strings.TrimSpace(s.tree.Doc.Text()) != "" {
			said[s.dir] = true
		}
	}
	var out []Finding
	for _, d := range dirs {
		if !said[d] {
			out = append(out, Finding{d, 0, "package has no comment: say what it owns, what not, its invariants and its files"})
		}
	}
	return out, nil
}

// emptyNames say nothing about what a package owns.
var emptyNames = []string{"util", "utils", "helper", "helpers", "common", "type", "types", "misc", "base", "shared", "lib"}

// PackageNames finds packages that are named after nothing.
func PackageNames(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, s := range files {
		name := strings.TrimSuffix(s.tree.Name.Name, "_test")
		last := s.dir[strings.LastIndex(s.dir, "/")+1:]
		if slices.Contains(emptyNames, name) || slices.Contains(emptyNames, last) {
			out = append(out, Finding{s.file, s.line(s.tree.Name.Pos()), fmt.Sprintf("package %s: name it by the thing it owns", name)})
		}
	}
	return out, nil
}

// MaxFunctionLines is where a function is too long to be read as a list of steps.
const MaxFunctionLines = 120

// FunctionLengths finds functions over MaxFunctionLines, comments included.
func FunctionLengths(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, s := range files {
		for _, d := range s.tree.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.line(fn.End()) - s.line(fn.Pos()) + 1; n > MaxFunctionLines {
				out = append(out, Finding{s.file, s.line(fn.Pos()), fmt.Sprintf("func %s has %d lines, more than %d", fn.Name.Name, n, MaxFunctionLines)})
			}
		}
	}
	return out, nil
}

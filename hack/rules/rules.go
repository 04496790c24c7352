// Package rules holds the house rules of this repository that neither a compiler nor
// golangci-lint has: which package may import what, what the top level looks like,
// that a package says what it owns, and that a type owns one thing. Its tests run them on the repository, and on small
// wrong trees under testdata, so that a rule which finds nothing is known to work.
//
// The rules read sources only, by syntax: no build, no network, no cache. What the
// programs link is compared beside them, with the go command. A rule is a function
// from a directory to the findings in it; none means the rule is kept.
package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Module is the path of the root module; a nested module's path extends it by its
// directory, so that an import path always names the directory it is found in.
const Module = "github.com/cri-sandbox/cri-sandbox"

// Finding is one place where a rule is broken.
type Finding struct {
	File string // slash-separated, relative to the tree
	Line int    // 0: the file or directory as a whole
	Text string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// Rule checks the tree below root. An error means that it could not be checked.
type Rule func(root string) ([]Finding, error)

// All are the rules by name.
var All = map[string]Rule{
	"package-comment": PackageComments,
	"imports":         Imports,
	"dependencies":    Dependencies,
	"layout":          Layout,
	"machine-path":    MachinePaths,
	"promises":        Promises,
	"methods":         Methods,
}

// source is one parsed Go file.
type source struct {
	file string // slash-separated, relative to the tree
	dir  string
	test bool
	set  *token.FileSet
	tree *ast.File
}

func (s source) line(p token.Pos) int { return s.set.Position(p).Line }

// skipDir names directories that hold no source of ours: build output, and what tests
// read as data.
func skipDir(name string) bool {
	return strings.HasPrefix(name, ".") || slices.Contains([]string{"testdata", "bin", "dist", "embedded"}, name)
}

// walk calls f with every file of ours below root, by its relative path.
func walk(root string, f func(rel string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && skipDir(d.Name()) {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(rel))
	})
}

// sources parses all Go files below root that a person wrote.
func sources(root string) ([]source, error) {
	var out []source
	err := walk(root, func(rel string) error {
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, filepath.Join(root, rel), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if ast.IsGenerated(tree) {
			return nil
		}
		dir := "."
		if i := strings.LastIndex(rel, "/"); i >= 0 {
			dir = rel[:i]
		}
		out = append(out, source{file: rel, dir: dir, test: strings.HasSuffix(rel, "_test.go"), set: set, tree: tree})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sources below %s: %w", root, err)
	}
	return out, nil
}

// below says whether dir is top or lies inside it.
func below(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

func anyAbove(dir string, tops []string) bool {
	return slices.ContainsFunc(tops, func(t string) bool { return below(dir, t) })
}

func readLines(root, rel string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		return nil, err
	}
	return strings.Split(string(b), "\n"), nil
}

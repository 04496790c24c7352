package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// crashSteps reads all steps at which a daemon can be killed from the source: the
// calls of crashpoint.Here. Those of the records are made at run time, from what
// is written, and so from the phases that there are.
func crashSteps(repo string) ([]string, error) {
	var steps []string
	err := filepath.WalkDir(repo, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != repo && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "hack" || n == "test") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || filepath.Base(filepath.Dir(path)) == "crashpoint" {
			return nil
		}
		found, err := stepsOf(path)
		steps = append(steps, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read crash points: %w", err)
	}
	steps = append(steps, recordSteps()...)
	slices.Sort(steps)
	for i := range steps[1:] {
		if steps[i] == steps[i+1] {
			return nil, fmt.Errorf("read crash points: %q stands at two places", steps[i])
		}
	}
	return steps, nil
}

func stepsOf(path string) (steps []string, err error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		return nil, err
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || fun.Sel.Name != "Here" {
			return true
		}
		if pkg, ok := fun.X.(*ast.Ident); !ok || pkg.Name != "crashpoint" {
			return true
		}
		lit, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			if filepath.Base(filepath.Dir(path)) != "record" {
				err = fmt.Errorf("%s: the step is no literal", set.Position(call.Pos()))
			}
			return true
		}
		step, uerr := strconv.Unquote(lit.Value)
		if uerr != nil {
			err = uerr
		}
		steps = append(steps, step)
		return true
	})
	return steps, err
}

func recordSteps() []string {
	what := []string{"pod request", "container request", "container layers", "container spec"}
	for _, ph := range lifecycle.Pod.Phases() {
		what = append(what, "pod "+string(ph))
	}
	for _, ph := range lifecycle.Container.Phases() {
		what = append(what, "container "+string(ph))
	}
	var steps []string
	for _, w := range what {
		steps = append(steps, "before record of "+w, "after record of "+w)
	}
	return steps
}

package rules

import (
	"cmp"
	"fmt"
	"go/ast"
	"slices"
)

// maxMethods is how many methods a type may have: one with more owns several things.
const maxMethods = 40

// Methods finds types with more methods than maxMethods, those in tests included. A
// method that has a version for each of several systems is one.
func Methods(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	// A package and its external tests lie in one directory.
	type key struct{ dir, pkg, name string }
	methods := map[key]map[string]bool{}
	for _, s := range files {
		for _, d := range s.tree.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			k := key{s.dir, s.tree.Name.Name, receiver(f.Recv.List[0].Type)}
			if methods[k] == nil {
				methods[k] = map[string]bool{}
			}
			methods[k][f.Name.Name] = true
		}
	}
	var out []Finding
	for k, names := range methods {
		if n := len(names); n > maxMethods {
			out = append(out, Finding{k.dir, 0, fmt.Sprintf("%s has %d methods, more than %d: split it by what it owns", k.name, n, maxMethods)})
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.String(), b.String()) })
	return out, nil
}

// receiver is the name of a method's type, without its pointer and its parameters.
func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.ParenExpr:
		return receiver(t.X)
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.IndexListExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

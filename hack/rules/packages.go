package rules

import (
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

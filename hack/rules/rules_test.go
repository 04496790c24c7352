package rules

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRepository runs every rule on the repository.
func TestRepository(t *testing.T) {
	for name, rule := range All {
		t.Run(name, func(t *testing.T) {
			found, err := rule("../..")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}

// TestRuleFinds runs each rule on testdata/RULE, a tree that breaks it, and
// compares the findings with the file `want` beside it.
func TestRuleFinds(t *testing.T) {
	for name, rule := range All {
		t.Run(name, func(t *testing.T) {
			found, err := rule(filepath.Join("testdata", name, "tree"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.String())
			}
			slices.Sort(got)
			b, err := os.ReadFile(filepath.Join("testdata", name, "want"))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSpace(string(b)), "\n")
			if !slices.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

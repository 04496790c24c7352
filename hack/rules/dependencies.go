package rules

import (
	"fmt"
	"regexp"
	"strings"
)

// dependenciesFile has tables whose first column names modules.
const dependenciesFile = "docs/dependencies.md"

// shippedModules are those whose direct dependencies it explains.
var shippedModules = []string{"go.mod", "podsandbox/sentry/go.mod"}

var (
	requirement = regexp.MustCompile(`^\s*(?:require\s+)?([a-z0-9.-]+\.[a-z]+/\S+)\s+v\S+$`)
	moduleCell  = regexp.MustCompile("^\\| `([^`]+)` \\|")
)

// Dependencies finds modules that go.mod requires directly and the document does not
// explain, and those that it explains and nobody requires.
func Dependencies(root string) ([]Finding, error) {
	explained := map[string]int{} // line
	lines, err := readLines(root, dependenciesFile)
	if err != nil {
		return nil, err
	}
	for i, line := range lines {
		if m := moduleCell.FindStringSubmatch(line); m != nil {
			explained[m[1]] = i + 1
		}
	}
	var out []Finding
	required := map[string]bool{}
	for _, file := range shippedModules {
		lines, err := readLines(root, file)
		if err != nil {
			return nil, err
		}
		for i, line := range lines {
			m := requirement.FindStringSubmatch(line) // a comment behind it says indirect
			if m == nil {
				continue
			}
			required[m[1]] = true
			if explained[m[1]] == 0 {
				out = append(out, Finding{file, i + 1, fmt.Sprintf("%s is not explained in %s", m[1], dependenciesFile)})
			}
		}
	}
	for module, line := range explained {
		if !required[module] {
			out = append(out, Finding{dependenciesFile, line, fmt.Sprintf("no %s requires %s directly", strings.Join(shippedModules, " or "), module)})
		}
	}
	return out, nil
}

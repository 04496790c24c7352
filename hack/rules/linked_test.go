package rules

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the lists of linked packages anew")

// programs are the modules and packages that are shipped. Beside each one's source
// lies the list of what it links.
var programs = []struct{ module, pkg, list string }{
	{".", "./cmd/cri-sandbox", "cmd/cri-sandbox/deps.txt"},
	{"podsandbox/sentry", ".", "podsandbox/sentry/deps.txt"},
}

var architectures = []string{"amd64", "arm64"}

const linkedHead = `# The packages of other modules that this program links, on Linux.
# Renew it with: go test ./hack/rules -run TestLinkedPackages -update
`

// TestLinkedPackages compares what is linked with what is checked in, so that a new
// package is a line that somebody reads. It asks the go command, which needs the
// modules but builds nothing, and not the embedded program.
func TestLinkedPackages(t *testing.T) {
	for _, p := range programs {
		t.Run(p.list, func(t *testing.T) {
			got := linkedHead + strings.Join(linked(t, filepath.Join("../..", p.module), p.pkg), "\n") + "\n"
			file := filepath.Join("../..", p.list)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			have, want := strings.Split(got, "\n"), strings.Split(string(b), "\n")
			for _, line := range have {
				if !slices.Contains(want, line) {
					t.Errorf("linked, and not in the list: %s", line)
				}
			}
			for _, line := range want {
				if !slices.Contains(have, line) {
					t.Errorf("in the list, and not linked: %s", line)
				}
			}
			if t.Failed() {
				t.Errorf("if this is meant, say in docs/dependencies.md what it is for, and run: go test ./hack/rules -run TestLinkedPackages -update")
			} else if got != string(b) {
				t.Errorf("%s is out of order; run: go test ./hack/rules -run TestLinkedPackages -update", p.list)
			}
		})
	}
}

// linked lists the packages of other modules, sorted. One that is not linked on
// every architecture says on which.
func linked(t *testing.T, module, pkg string) []string {
	t.Helper()
	on := map[string][]string{}
	for _, arch := range architectures {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, &stderr)
		}
		for path := range strings.FieldsSeq(string(out)) {
			if !below(path, Module) {
				on[path] = append(on[path], arch)
			}
		}
	}
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(on)) {
		if len(on[path]) < len(architectures) {
			path += " (" + strings.Join(on[path], ", ") + ")"
		}
		lines = append(lines, path)
	}
	return lines
}

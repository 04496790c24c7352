package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/page"
)

// spec is what is read of a spec in Ginkgo's JSON report.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct{ Message string }
}

// name is what a skip's pattern is matched against, as Ginkgo does it.
func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// reason says why a spec did not pass: the group of skip.go that leaves it out,
// else the suite's own word.
func (s spec) reason() string {
	switch {
	case s.State == "passed":
		return ""
	case s.Failure.Message != "":
		return s.Failure.Message
	case strings.Contains(s.name(), "benchmark"):
		return "runs with --benchmark only"
	}
	for _, group := range skips {
		if regexp.MustCompile(group.pattern).MatchString(s.name()) {
			return group.why
		}
	}
	return "left out by an argument"
}

// readReport returns the specs of a report, ordered by name.
func readReport(path string) ([]spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var suites []struct{ SpecReports []spec }
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("decode report: %w", err)
	}
	var specs []spec
	for _, s := range suites {
		for _, sp := range s.SpecReports {
			if sp.LeafNodeType == "It" {
				specs = append(specs, sp)
			}
		}
	}
	slices.SortStableFunc(specs, func(a, b spec) int { return cmp.Compare(a.name(), b.name()) })
	return specs, nil
}

// table is the report as a section of the documentation.
func table(specs []spec, version, kernel string, day time.Time) string {
	count := map[string]int{}
	for _, s := range specs {
		count[s.State]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, `%s, Linux %s, %s, critest %s: **%d passed, %d failed, %d skipped** of %d.

| spec | result | why not |
|---|---|---|
`, day.Format(time.DateOnly), kernel, runtime.GOARCH, version, count["passed"], len(specs)-count["passed"]-count["skipped"], count["skipped"], len(specs))
	for _, s := range specs {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", page.Cell(strings.TrimPrefix(s.name(), "[k8s.io] ")), s.State, page.Cell(s.reason()))
	}
	return b.String()
}

// writeConformance turns the suite's report into docs/conformance.md.
func writeConformance(repo, report string) error {
	specs, err := readReport(report)
	if err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("read kernel version: %w", err)
	}
	version, err := page.Version(filepath.Join(repo, "hack", "tools"), "sigs.k8s.io/cri-tools")
	if err != nil {
		return err
	}
	section := table(specs, version, unix.ByteSliceToString(u.Release[:]), time.Now())
	if err := page.Write(filepath.Join(repo, "docs", "conformance.md"), "critest", section); err != nil {
		return err
	}
	fmt.Println("wrote docs/conformance.md")
	return nil
}

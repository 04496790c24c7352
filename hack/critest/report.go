package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/cri-sandbox/cri-sandbox/hack/conformance"
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

// readReport returns what became of the specs of a report.
func readReport(path string) ([]conformance.Result, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var suites []struct{ SpecReports []spec }
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("decode report: %w", err)
	}
	var results []conformance.Result
	for _, s := range suites {
		for _, sp := range s.SpecReports {
			if sp.LeafNodeType != "It" {
				continue
			}
			if sp.State != "passed" && sp.State != "skipped" {
				sp.State = "failed" // or panicked, or timed out
			}
			results = append(results, conformance.Result{Name: strings.TrimPrefix(sp.name(), "[k8s.io] "), State: sp.State, Why: sp.reason()})
		}
	}
	return results, nil
}

var suiteOfCritest = conformance.Suite{
	Section: "critest", Each: "spec", Program: "critest", Tools: "hack/tools", Module: "sigs.k8s.io/cri-tools",
	Summary: func(count map[string]int) string {
		return fmt.Sprintf("%d passed, %d failed, %d skipped", count["passed"], count["failed"], count["skipped"])
	},
}

// writeConformance turns the suite's report into docs/conformance.md.
func writeConformance(repo, report string) error {
	results, err := readReport(report)
	if err != nil {
		return err
	}
	return suiteOfCritest.Write(repo, results)
}

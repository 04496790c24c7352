package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cri-sandbox/cri-sandbox/hack/conformance"
)

var (
	resultLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)
	reasonLine = regexp.MustCompile(`^ +\S+_test\.go:\d+: (.*)$`)
)

var states = map[string]string{"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}

// results reads what the tests print with -test.v. A test that has parts is told as
// one, unless a part of it failed or was skipped.
func results(out string) []conformance.Result {
	var all []conformance.Result
	var last string // said by a test before its result
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := reasonLine.FindStringSubmatch(line); m != nil {
			last = m[1]
			continue
		}
		m := resultLine.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "=== RUN") {
				last = ""
			}
			continue
		}
		r := conformance.Result{Name: m[2], State: states[m[1]]}
		switch m[1] {
		case "SKIP":
			r.Why = last
		case "FAIL":
			if why := difference(r.Name); why != "" {
				r.State, r.Why = "differs", why
			}
		}
		if r.State != "passed" || !strings.Contains(r.Name, "/") {
			all = append(all, r)
		}
	}
	ran := slices.Clone(all)
	all = slices.DeleteFunc(all, func(r conformance.Result) bool { // its parts say it
		return slices.ContainsFunc(ran, func(part conformance.Result) bool { return strings.HasPrefix(part.Name, r.Name+"/") })
	})
	for _, g := range skips {
		for _, t := range g.tests {
			all = append(all, conformance.Result{Name: t, State: "left out", Why: g.why})
		}
	}
	return all
}

// failed names the tests that failed and should not have.
func failed(all []conformance.Result) error {
	var names []string
	for _, r := range all {
		if r.State == "failed" {
			names = append(names, r.Name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(names, ", "))
	}
	return nil
}

var containerdSuite = conformance.Suite{
	Section: "containerd", Each: "test", Program: "containerd", Tools: "hack/tools/containerd", Module: "github.com/containerd/containerd/v2",
	Summary: func(count map[string]int) string {
		return fmt.Sprintf("%d passed, %d failed, %d differ, %d skipped by themselves, %d left out",
			count["passed"], count["failed"], count["differs"], count["skipped"], count["left out"])
	},
}

package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/page"
)

// result is what became of a test.
type result struct{ name, state, why string }

var (
	resultLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)
	reasonLine = regexp.MustCompile(`^ +\S+_test\.go:\d+: (.*)$`)
)

var states = map[string]string{"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}

// results reads what the tests print with -test.v. A test that has parts is told as
// one, unless a part of it failed or was skipped.
func results(out string) []result {
	var all []result
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
		r := result{name: m[2], state: states[m[1]]}
		switch m[1] {
		case "SKIP":
			r.why = last
		case "FAIL":
			if why := difference(r.name); why != "" {
				r.state, r.why = "differs", why
			}
		}
		if r.state != "passed" || !strings.Contains(r.name, "/") {
			all = append(all, r)
		}
	}
	ran := slices.Clone(all)
	all = slices.DeleteFunc(all, func(r result) bool { // its parts say it
		return slices.ContainsFunc(ran, func(part result) bool { return strings.HasPrefix(part.name, r.name+"/") })
	})
	for _, g := range skips {
		for _, t := range g.tests {
			all = append(all, result{t, "left out", g.why})
		}
	}
	slices.SortStableFunc(all, func(a, b result) int { return cmp.Compare(a.name, b.name) })
	return all
}

// failed names the tests that failed and should not have.
func failed(all []result) error {
	var names []string
	for _, r := range all {
		if r.state == "failed" {
			names = append(names, r.name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(names, ", "))
	}
	return nil
}

// table is the results as a section of the documentation.
func table(all []result, version, kernel string, day time.Time) string {
	count := map[string]int{}
	for _, r := range all {
		count[r.state]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, `%s, Linux %s, %s, containerd %s: **%d passed, %d failed, %d differ, %d skipped by themselves, %d left out**.

| test | result | why not |
|---|---|---|
`, day.Format(time.DateOnly), kernel, runtime.GOARCH, version, count["passed"], count["failed"], count["differs"], count["skipped"], count["left out"])
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", page.Cell(r.name), r.state, page.Cell(r.why))
	}
	return b.String()
}

// writeConformance turns the results into a section of docs/conformance.md.
func writeConformance(repo string, all []result) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("read kernel version: %w", err)
	}
	version, err := page.Version(filepath.Join(repo, "hack", "tools", "containerd"), "github.com/containerd/containerd/v2")
	if err != nil {
		return err
	}
	section := table(all, version, unix.ByteSliceToString(u.Release[:]), time.Now())
	if err := page.Write(filepath.Join(repo, "docs", "conformance.md"), "containerd", section); err != nil {
		return err
	}
	fmt.Println("wrote docs/conformance.md")
	return nil
}
